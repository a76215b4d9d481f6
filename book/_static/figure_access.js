// What a figure offers to the keyboard and to those who would rather read than look: its legend, buttons and sliders in
// the tab order, and its numbers as a table.
(() => {
  "use strict";

  const MOST = 2000; // rows of a table

  // ---- the keyboard

  const CONTROLS = ".legendtoggle, .updatemenu-header, .updatemenu-button, .updatemenu-dropdown-button, .slider-group";

  function press(plot, control) {
    const events = control.matches(".legendtoggle") ? ["mousedown", "mouseup"] : ["click"];
    for (const name of events) control.dispatchEvent(new MouseEvent(name, { bubbles: true, view: window }));
    reach(plot); // a menu's choices come and go without a drawing
    if (control.matches(".updatemenu-dropdown-button")) plot.querySelector(".updatemenu-header").focus();
  }

  // What a control is, is called and stands at; plotly keeps the controls, so it is said again after each drawing.
  function said(plot, control, index) {
    if (index >= 0) {
      const { steps, active, currentvalue } = plot._fullLayout.sliders[index];
      const at = { "aria-valuemin": 0, "aria-valuemax": steps.length - 1, "aria-valuenow": active };
      const name = { role: "slider", "aria-label": currentvalue.prefix || "step" };
      return { ...name, ...at, "aria-valuetext": steps[active]?.label || "" };
    }
    if (!control.matches(".legendtoggle")) return { role: "button", "aria-label": control.textContent.trim() };
    const { textContent, style } = control.parentNode;
    return { role: "button", "aria-label": `show ${textContent.trim()}`, "aria-pressed": style.opacity !== "0.5" };
  }

  async function slide(plot, index, by) {
    const slider = plot._fullLayout.sliders[index];
    const steps = slider.steps.filter((step) => step.visible !== false);
    const to = Math.max(0, Math.min(steps.length - 1, slider.active + by));
    if (to === slider.active) return;
    await Plotly[steps[to].method](plot, ...steps[to].args);
    await Plotly.relayout(plot, { [`sliders[${index}].active`]: to });
    reach(plot);
  }

  function reach(plot) {
    const controls = [...plot.querySelectorAll(CONTROLS)];
    const sliders = controls.filter((each) => each.matches(".slider-group"));
    controls.forEach((control, place) => {
      const index = sliders.indexOf(control);
      for (const [name, value] of Object.entries(said(plot, control, index))) control.setAttribute(name, value);
      if (control.dataset.reached) return;
      control.dataset.reached = "yes";
      control.setAttribute("tabindex", "0");
      control.addEventListener("focus", () => (plot.dataset.focused = place));
      control.addEventListener("blur", () => control.isConnected && delete plot.dataset.focused);
      control.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
        if (index >= 0 && by) slide(plot, index, by);
        else if (index < 0 && (event.key === "Enter" || event.key === " ")) press(plot, control);
        else return;
        event.preventDefault();
      });
    });
    // A figure that was drawn anew has new controls: the one in use keeps the focus.
    const kept = plot.dataset.focused && controls[plot.dataset.focused];
    if (kept && document.activeElement === document.body) kept.focus({ preventScroll: true });
  }

  // ---- the numbers

  const listed = (value) => (value && typeof value !== "string" && value.length !== undefined ? [...value] : null);

  function axisOf(plot, trace, letter) {
    const id = trace[`${letter}axis`] || letter;
    return plot._fullLayout[`${letter}axis${id.slice(1)}`];
  }

  // The title above a trace's panel, of those that stand over the same middle the nearest.
  function panelOf(plot, across, up) {
    const middle = across && (across.domain[0] + across.domain[1]) / 2;
    const above = (plot._fullLayout.annotations || []).filter(
      ({ showarrow, xref, x, y }) => up && !showarrow && xref === "paper" && Math.abs(x - middle) < 0.01 && y > up.domain[1] - 0.01,
    );
    return above.sort((one, other) => one.y - other.y)[0]?.text || "";
  }

  function told(axis, value) {
    const place = axis && axis.ticktext && axis.tickvals ? listed(axis.tickvals).indexOf(value) : -1;
    if (place >= 0) return axis.ticktext[place];
    return typeof value === "number" ? String(+value.toPrecision(5)) : String(value ?? "");
  }

  function rowsOf(plot) {
    const rows = [];
    for (const trace of plot._fullData) {
      if (trace.visible !== true) continue;
      const [xs, ys, zs] = [trace.x, trace.y, trace.z].map(listed);
      const [across, up] = ["x", "y"].map((letter) => axisOf(plot, trace, letter));
      const add = (...cells) => rows.push([panelOf(plot, across, up), trace.name || "", ...cells]);
      if (zs && listed(zs[0])) {
        zs.forEach((line, i) => [...line].forEach((z, j) => add(told(across, xs?.[j] ?? j), told(up, ys?.[i] ?? i), told(null, z))));
      } else {
        const length = Math.max(xs?.length || 0, ys?.length || 0);
        for (let i = 0; i < length; i++) add(told(across, xs?.[i] ?? i), told(up, ys?.[i] ?? i), "");
      }
    }
    return rows.map((row) => row.map((cell) => cell.replace(/<[^>]*>/g, " ")));
  }

  function tabulate(details) {
    const plot = details.closest(".sf-figure").querySelector(".sf-plot");
    if (!plot._fullData) return;
    const rows = rowsOf(plot);
    const first = plot._fullData.find((trace) => trace.visible === true) || {};
    // As the figure names them: to an axis without a title plotly gives one that asks for it.
    const titles = ["x", "y"].map((letter) => plot.layout[axisOf(plot, first, letter)?._name]?.title?.text || letter);
    const panels = new Set(rows.map((row) => row[0])).size > 1;
    const kept = [0, 1, 2, 3, 4].filter((column) => (column ? column === 2 || rows.some((row) => row[column] !== "") : panels));
    const cell = (kind, words) => Object.assign(document.createElement(kind), { textContent: words });
    const line = (kind, cells) => {
      const row = document.createElement("tr");
      row.append(...kept.map((column) => cell(kind, cells[column])));
      return row;
    };
    const table = document.createElement("table");
    table.createTHead().append(line("th", ["panel", "series", ...titles, "value"]));
    table.createTBody().append(...rows.slice(0, MOST).map((row) => line("td", row)));
    const holder = Object.assign(document.createElement("div"), { className: "sf-numbers", tabIndex: 0 });
    holder.setAttribute("role", "group"); // no landmark: a page has many
    holder.setAttribute("aria-label", "the numbers of the figure");
    holder.append(table);
    if (rows.length > MOST) holder.append(cell("p", `The first ${MOST} of ${rows.length} rows.`));
    details.querySelector(".sf-numbers")?.remove();
    details.append(holder);
  }

  document.addEventListener(
    "toggle",
    ({ target }) => target.matches("details.sf-data") && target.open && tabulate(target),
    true, // it does not bubble
  );
  document.addEventListener("sf-drawn", ({ target }) => {
    const details = target.closest(".sf-figure").querySelector("details.sf-data");
    const follow = () => {
      reach(target);
      if (details?.open) tabulate(details);
    };
    follow();
    target.on("plotly_afterplot", follow);
  });
})();
