// Draws the page's figures and keeps them in the colours of its theme.
//
// A figure is <figure class="sf-figure"> with <div class="sf-plot"> to draw in and <script type="application/json">
// holding {data, layout}. plotly.min.js lies beside this file; the build copies it from the plotly package.
(() => {
  "use strict";

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

  function merged(base, over) {
    const result = { ...base };
    for (const [key, value] of Object.entries(over)) {
      result[key] = isObject(value) && isObject(result[key]) ? merged(result[key], value) : value;
    }
    return result;
  }

  // Colours go into the template, so that whatever a figure sets itself wins over them.
  function template(own) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const text = colour("--pst-color-text-base");
    const line = colour("--pst-color-border");
    const muted = colour("--pst-color-text-muted");
    const surface = colour("--pst-color-surface");
    const clear = "rgba(0,0,0,0)";
    const axis = { gridcolor: line, linecolor: line, tickcolor: line, zerolinecolor: line, automargin: true };
    const button = { bgcolor: surface, bordercolor: line, font: { color: text } };
    return merged(own || {}, {
      layout: {
        paper_bgcolor: clear,
        plot_bgcolor: clear,
        font: { color: text, family: style.getPropertyValue("--pst-font-family-base").trim() || undefined },
        xaxis: axis,
        yaxis: axis,
        legend: { bgcolor: clear },
        hoverlabel: { bgcolor: surface, bordercolor: line, font: { color: text } },
        modebar: { bgcolor: clear, color: muted, activecolor: text },
        annotationdefaults: { arrowcolor: text },
        shapedefaults: { line: { color: text } },
        updatemenudefaults: button,
        sliderdefaults: { ...button, activebgcolor: line, tickcolor: text },
      },
    });
  }

  const NARROW = 520; // pixels: below, a figure has the layout of a phone where it brings one
  const own = new Map(); // each plot's template as the figure gave it

  // Plotly sizes a plot once; one drawn inside a closed dropdown or tab has to be sized when that opens.
  const resized = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      if (contentRect.width > 0 && target.offsetParent !== null) Plotly.Plots.resize(target);
    }
  });

  async function draw(figure) {
    const plot = figure.querySelector(".sf-plot");
    const { data, layout } = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    own.set(plot, layout.template);
    const small = (plot.clientWidth || innerWidth) < NARROW; // in a closed dropdown it has no width yet
    await Plotly.newPlot(
      plot,
      data,
      { autosize: true, ...merged(layout, (small && layout.meta?.narrow) || {}), template: template(layout.template) },
      { displaylogo: false, showSendToCloud: false, displayModeBar: small ? false : "hover" },
    );
    // What a legend of many lines or turned labels take of the plot, the figure grows by.
    const { height, margin, _size } = plot._fullLayout;
    const taken = height - margin.t - margin.b - _size.h;
    // (Not by relayout: that would fix the width, too.)
    if (taken > 8) await Plotly.react(plot, plot.data, { ...plot.layout, height: height + taken });
    resized.observe(plot);
    plot.dispatchEvent(new CustomEvent("sf-drawn", { bubbles: true }));
  }

  async function start() {
    new MutationObserver(() => {
      for (const [plot, given] of own) Plotly.relayout(plot, { template: template(given) });
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    // Paper is white, whatever the theme.
    const { dataset } = document.documentElement;
    let theme;
    addEventListener("beforeprint", () => ([theme, dataset.theme] = [dataset.theme, "light"]));
    addEventListener("afterprint", () => (dataset.theme = theme));
    for (const figure of document.querySelectorAll(".sf-figure")) {
      try {
        await draw(figure);
      } catch (error) {
        console.error("figure not drawn:", figure.getAttribute("aria-label"), error);
      }
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
