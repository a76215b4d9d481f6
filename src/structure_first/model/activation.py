"""The tanh-approximated GELU, for a CPU."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHARE = 1 << 17  # elements a thread handles at once, so that what lies between input and output stays in its cache
SLOPE, CUBIC = (8 / torch.pi) ** 0.5, (8 / torch.pi) ** 0.5 * 0.044715


def gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """GPT-2's GELU (Hendrycks and Gimpel 2016); it equals `x sigmoid(x (SLOPE + CUBIC x^2))`."""
    return Gelu.apply(x) if eager_on_cpu(x) else F.gelu(x, approximate="tanh")


def eager_on_cpu(x: Tensor) -> bool:
    """Whether kernels of our own serve: float32 on a CPU, and no compiler that would write better ones."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


class Gelu(torch.autograd.Function):
    """A sigmoid costs a CPU a tenth of a tanh; the derivative is taken while its parts are at hand."""

    @staticmethod
    def forward(ctx, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        flat, slope_at_0 = x.flatten(), x.new_tensor(SLOPE)
        y, slope = torch.empty_like(flat), torch.empty_like(flat)
        shares = (each.split(SHARE * torch.get_num_threads()) for each in (flat, y, slope))
        for x_, y_, slope_ in zip(*shares, strict=True):
            gate = torch.addcmul(slope_at_0, x_, x_, value=CUBIC).mul_(x_).sigmoid_()
            torch.mul(x_, gate, out=y_)
            inner = torch.addcmul(slope_at_0, x_, x_, value=3 * CUBIC)  # what the sigmoid is of, differentiated
            torch.addcmul(gate, torch.addcmul(y_, y_, gate, value=-1), inner, out=slope_)
        ctx.save_for_backward(slope.view(x.shape))
        return y.view(x.shape)

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return grad * ctx.saved_tensors[0]
