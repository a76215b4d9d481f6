// Lets the reader question the page's models: a haystack to change, what each model answers, and where a head looks.
//
// <figure class="sf-ask"> holds <div class="sf-ask-here"> to draw in, which until then says that it needs a script, and
// <script type="application/json"> with {tokens, keys, queries, values, written, models}: the first haystack; the tokens
// of all keys, of the queries for them, and of all values; how each token is written; and of each model its {name,
// right, layer, head, weights}: the share of right answers, the head that is drawn first, and what gpt2.js reads.
(() => {
  "use strict";

  const SHOWN = 5; // answers of each model
  const LEAST = 0.02; // attention that is drawn
  const percent = (share) => (share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`);
  const largest = (shares) => shares.indexOf(Math.max(...shares));
  const one = (list) => list[Math.floor(list.length * Math.random())];

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Tokens are key, value, key, value, ... and the query.
  function start(figure, number) {
    const told = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const { keys, queries, values, written } = told;
    const queryOf = (key) => queries[keys.indexOf(key)];
    const models = told.models.map((each) => questioned(each, written));
    let tokens;

    // A key is chosen as a radio button is, by click or by arrow keys, and typed over once it is; a value is typed.
    const pairs = Array.from({ length: (told.tokens.length - 1) / 2 }, (_, pair) => {
      const choice = element("input", { type: "radio", name: `sf-ask-${number}` });
      const letter = element("span");
      const key = element("label", { class: "sf-ask-key" }, choice, letter);
      const [min, max] = [values.at(0), values.at(-1)];
      const value = element("input", { type: "number", class: "sf-ask-value", required: "", min, max });
      choice.addEventListener("change", () => ask(tokens.with(-1, queryOf(tokens[2 * pair]))));
      choice.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const typed = [event.key, event.key.toUpperCase()].map((name) => keys.find((each) => written[each] === name));
        const other = typed[0] ?? typed[1];
        if (other === undefined) return;
        if (other === tokens[2 * pair] || !tokens.includes(other)) ask(tokens.with(2 * pair, other).with(-1, queryOf(other)));
        else said.textContent = `${written[other]} is a key here already, and each is there once; type another.`;
      });
      value.addEventListener("input", () => {
        if (value.checkValidity()) ask(tokens.with(2 * pair + 1, value.valueAsNumber));
        else said.textContent = `A value is a whole number from ${min} to ${max}; type one.`;
      });
      value.addEventListener("change", () => ask(tokens)); // with what the models had last
      return { choice, letter, key, value };
    });
    const query = element("output");
    const cells = [...pairs.flatMap(({ key, value }) => [key, value]), query];
    const haystack = element("div", { class: "sf-ask-row", role: "group", "aria-label": "haystack" }, ...cells);
    const said = element("p", { role: "status" });
    const shuffle = element("button", { type: "button" }, "Shuffle");
    shuffle.addEventListener("click", () => {
      const left = [...keys];
      const drawn = pairs.map(() => left.splice(left.indexOf(one(left)), 1)[0]);
      ask([...drawn.flatMap((key) => [key, one(values)]), queryOf(one(drawn))]);
    });
    const hint = element("p", {}, "The last cell asks. Click a key, or move with ← →, to ask for it; type over it, or over a value.");
    figure.querySelector(".sf-ask-here").replaceChildren(
      element("div", { class: "sf-ask-two" }, element("div", {}, haystack, said), element("div", {}, shuffle, hint)),
      ...models.map((model) => model.section),
    );

    function ask(haystack) {
      tokens = haystack;
      const asked = keys[queries.indexOf(tokens.at(-1))];
      const place = tokens.indexOf(asked) + 1; // of the right answer
      pairs.forEach(({ choice, letter, value }, pair) => {
        const name = written[tokens[2 * pair]];
        letter.textContent = name;
        choice.ariaLabel = `ask for ${name}`;
        choice.checked = tokens[2 * pair] === asked;
        value.value = tokens[2 * pair + 1];
        value.ariaLabel = `value of ${name}`;
        value.classList.toggle("sf-ask-right", choice.checked);
      });
      query.textContent = written[tokens.at(-1)];
      const answers = models.map(({ name, answer }) => `${name} answers ${answer(tokens, place)}`);
      said.textContent = `${written[asked]} stands with ${tokens[place]}: ${answers.join(", ")}.`;
    }
    ask(told.tokens);
  }

  // One model's part of the figure: where a head of it looks, and its likeliest answers.
  function questioned({ name, right, layer, head, weights }, written) {
    const model = gpt2.read(weights);
    const { layers, heads } = model.shape;
    const options = Array.from({ length: layers * heads }, (_, at) =>
      element("option", {}, `layer ${Math.floor(at / heads)}, head ${at % heads}`),
    );
    const choice = element("select", { "aria-label": `the head of ${name} that is drawn` }, ...options);
    choice.selectedIndex = layer * heads + head;
    choice.addEventListener("change", () => look());

    const title = element("p", {}, element("strong", {}, name), `, right on ${percent(right)} of haystacks`);
    const arcs = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    arcs.ariaHidden = "true";
    arcs.setAttribute("preserveAspectRatio", "none");
    const row = element("div", { class: "sf-ask-row", "aria-hidden": "true" });
    const most = element("span");
    const answers = element("ol", { "aria-label": `the likeliest answers of ${name}` });
    const section = element(
      "div",
      { class: "sf-ask-two sf-ask-model", role: "group", "aria-label": name },
      element("div", { class: "sf-ask-look" }, title, arcs, row, element("p", {}, choice, most)),
      element("div", {}, answers),
    );
    let tokens, place, attention;

    function answer(haystack, rightPlace) {
      [tokens, place] = [haystack, rightPlace];
      const ran = gpt2.run(model, tokens);
      attention = ran.attention;
      const shares = gpt2.softmax(ran.logits.at(-1));
      const order = shares.map((_, token) => token).sort((a, b) => shares[b] - shares[a]);
      const shown = [...new Set([...order.slice(0, SHOWN), tokens[place]])]; // the right one, however unlikely
      answers.replaceChildren(...shown.map((token) => bar(written[token], shares[token], token === tokens[place])));
      look();
      return `${written[order[0]]} (${order[0] === tokens[place] ? "right" : "wrong"})`;
    }

    function bar(token, share, isRight) {
      const length = element("span", { class: "sf-ask-bar", style: `--share: ${share}` });
      const mark = isRight ? [element("span", { role: "img", "aria-label": "right" }, " ✓")] : [];
      const parts = [element("span", {}, token), length, element("span", {}, percent(share), ...mark)];
      return element("li", { class: isRight ? "sf-ask-right" : "" }, ...parts);
    }

    // Of the last layer only what the query takes is read; of a layer before it, what places take from one another.
    function look() {
      const [layer, head] = [Math.floor(choice.selectedIndex / heads), choice.selectedIndex % heads];
      const pattern = attention[layer][head];
      const last = tokens.length - 1;
      const read = pattern.flatMap((shares, from) => shares.map((share, to) => ({ from, to, share })));
      const drawn = read.filter(({ from, to }) => (layer < layers - 1 ? from !== to : from === last));
      arcs.setAttribute("viewBox", `0 0 ${tokens.length} 1`);
      arcs.innerHTML = drawn.map(arc).join("");
      const cells = tokens.map((token, at) => {
        const seen = Math.max(0, ...drawn.filter(({ to }) => to === at).map(({ share }) => share));
        const isRight = at === place ? "sf-ask-right" : "";
        return element("span", { style: `--share: ${seen}`, class: isRight }, written[token]);
      });
      row.replaceChildren(...cells);
      const top = largest(pattern[last]);
      const [from, to] = [written[tokens[last]], written[tokens[top]]];
      most.textContent = ` from ${from} most at ${to}: ${percent(pattern[last][top])}`;
    }

    function arc({ from, to, share }) {
      if (share < LEAST || from === to) return "";
      const top = 1 - 1.3 * Math.sqrt((from - to) / tokens.length);
      const path = `M${from + 0.5} 1C${from + 0.5} ${top} ${to + 0.5} ${top} ${to + 0.5} 1`;
      return `<path d="${path}" stroke-width="${1 + 4 * share}" opacity="${0.15 + 0.85 * share}"/>`;
    }

    return { name, section, answer };
  }

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".sf-ask").forEach(start));
})();
