// Draws the figures of a slide when it is first shown, in the room that its words leave and with letters that can be
// read from the last row; words that would not fit are made smaller. A figure is as in a page: <div class="sf-plot">
// and <script type="application/json">.
(() => {
  "use strict";

  const LEAST = 240; // pixels of a plot
  const LETTERS = 17;

  function draw(figure, height) {
    const { data, layout } = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const template = layout.template || {};
    const axis = (name) => ({ ...template.layout?.[name], automargin: true });
    template.layout = { ...template.layout, xaxis: axis("xaxis"), yaxis: axis("yaxis") };
    const font = { color: "#1b2733", ...layout.font, size: LETTERS };
    const over = { template, font, height, width: undefined, autosize: true };
    const config = { displaylogo: false, displayModeBar: false };
    return Plotly.newPlot(figure.querySelector(".sf-plot"), data, { ...layout, ...over }, config);
  }

  // What is left of a slide below its words, its own padding excepted.
  function room(slide) {
    const scale = slide.getBoundingClientRect().height / slide.offsetHeight;
    const end = slide.lastElementChild.getBoundingClientRect().bottom - slide.getBoundingClientRect().top;
    return slide.offsetHeight - parseFloat(getComputedStyle(slide).paddingBottom) - end / scale;
  }

  async function show() {
    const slide = Reveal.getCurrentSlide();
    for (let size = 30; room(slide) < 0 && size > 17; size -= 1) slide.style.fontSize = `${size}px`;
    const figures = [...slide.querySelectorAll(".sf-figure:not([data-drawn])")];
    const height = Math.max(LEAST, Math.floor(room(slide) / figures.length));
    for (const figure of figures) {
      figure.dataset.drawn = "yes";
      await draw(figure, height);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    Reveal.on("slidechanged", show);
    // A deck that is opened at a slide of its own, or read again, may be ready before this.
    if (Reveal.isReady()) show();
    else Reveal.on("ready", show);
  });
})();
