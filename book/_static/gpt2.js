// GPT-2 on one sequence, as model/transformer.py computes it, for a page that has no network.
//
//   const model = gpt2.read(base64);  // of a safetensors file as model/weights.py saves it
//   const { logits, attention } = gpt2.run(model, tokens);
//
// `logits[place][token]` are of the token that comes next; `attention[layer][head][query][key]` are shares of the keys
// up to the query. A matrix is a list of rows.
const gpt2 = (() => {
  "use strict";

  function read(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const { __metadata__, ...tensors } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const weights = {};
    for (const [name, { dtype, shape, data_offsets }] of Object.entries(tensors)) {
      if (dtype !== "F32") throw new Error(`${name} is stored as ${dtype}; only F32 is read`);
      const [from, to] = data_offsets.map((offset) => start + offset);
      const flat = Array.from(new Float32Array(bytes.buffer.slice(from, to)));
      weights[name] = shape.length === 1 ? flat : range(shape[0]).map((row) => part(flat, row, shape[1]));
    }
    return { shape: JSON.parse(__metadata__.meta).shape, weights };
  }

  function run({ shape, weights }, tokens) {
    const { layers, heads, width, context, tied } = shape;
    if (tokens.length > context) throw new Error(`${tokens.length} tokens do not fit in a context of ${context}`);
    const norm = (name, x) => x.map((row) => normalised(row, weights[`${name}.scale`], weights[`${name}.shift`]));
    const affine = (name, x) => {
      const columns = transposed(weights[`${name}.weight`]);
      return x.map((row) => add(columns.map((column) => dot(row, column)), weights[`${name}.bias`]));
    };

    let x = tokens.map((token, place) => add(weights.embedding[token], weights.position[place]));
    const attention = range(layers).map((layer) => {
      const block = `blocks.${layer}`;
      const seen = norm(`${block}.attention_norm`, x);
      const queries = affine(`${block}.attention.query`, seen);
      const keysAndValues = affine(`${block}.attention.key_value`, seen);
      const each = range(heads).map((head) => {
        const query = queries.map((row) => part(row, head, width / heads));
        const key = keysAndValues.map((row) => part(row, head, width / heads));
        const value = keysAndValues.map((row) => part(row, heads + head, width / heads));
        const scores = query.map((q, place) => key.slice(0, place + 1).map((k) => dot(q, k) / Math.sqrt(q.length)));
        const pattern = scores.map(softmax);
        const mixed = pattern.map((shares) => transposed(value.slice(0, shares.length)).map((v) => dot(shares, v)));
        return { pattern, mixed };
      });
      const mixed = x.map((_, place) => each.flatMap((head) => head.mixed[place]));
      x = sums(x, affine(`${block}.attention.out`, mixed));
      const inside = affine(`${block}.mlp.up`, norm(`${block}.mlp_norm`, x)).map((row) => row.map(gelu));
      x = sums(x, affine(`${block}.mlp.down`, inside));
      return each.map((head) => head.pattern);
    });
    const table = tied ? weights.embedding : weights.unembedding;
    const logits = norm("norm", x).map((row) => table.map((token) => dot(row, token)));
    return { logits, attention };
  }

  const range = (count) => Array.from({ length: count }, (_, i) => i);
  const part = (row, number, size) => row.slice(number * size, (number + 1) * size);
  const transposed = (rows) => rows[0].map((_, i) => rows.map((row) => row[i]));
  const total = (row) => row.reduce((sum, a) => sum + a, 0);
  const add = (a, b) => a.map((value, i) => value + b[i]);
  const sums = (x, y) => x.map((row, i) => add(row, y[i]));
  const dot = (a, b) => total(a.map((value, i) => value * b[i]));

  function normalised(row, scale, shift) {
    const mean = total(row) / row.length;
    const centred = row.map((value) => value - mean);
    const deviation = Math.sqrt(dot(centred, centred) / row.length + 1e-5);
    return centred.map((value, i) => (value / deviation) * scale[i] + shift[i]);
  }

  function softmax(row) {
    const most = Math.max(...row);
    const powers = row.map((value) => Math.exp(value - most));
    const sum = total(powers);
    return powers.map((power) => power / sum);
  }

  function gelu(x) {
    return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  }

  return { read, run, softmax };
})();
