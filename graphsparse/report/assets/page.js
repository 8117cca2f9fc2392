// The page's own script: it draws the charts with plotly, filters, sorts, saves, and changes between light and dark.
// Texts of the run reach the page as data only: nothing here makes HTML of them.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const hidden = {}; // by scope (a section, or a chart of its own): groups that the reader has switched off
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon", "hexagram"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const COLOURS = 10;

  // Colours -----------------------------------------------------------------------------------------------------------
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const faint = (rgb, share) => rgb.replace("rgb(", "rgba(").replace(")", `, ${share})`);

  // Charts ------------------------------------------------------------------------------------------------------------
  const shownIn = (scope, group) => !(hidden[scope] && hidden[scope].has(group));

  function dressed(trace, box) {
    const { group, role } = trace.meta;
    const slot = Math.max(0, data.groups[box.dataset.scope].indexOf(group));
    const ink = data.levels.includes(group) ? colour("ink") : colour(`c${slot % COLOURS}`);
    const dash = DASHES[Math.floor(slot / COLOURS) % DASHES.length];
    const own = { ...trace, visible: shownIn(box.dataset.scope, group), showlegend: false };
    if (role === "band") return { ...own, fillcolor: faint(ink, 0.1) };
    if (role === "level") return { ...own, line: { color: ink, width: 1.5, dash: "dash" } };
    if (role === "bar") return { ...own, marker: { color: ink, opacity: 0.9 } };
    if (role === "line") {
      const marker = { color: ink, size: 8, symbol: SYMBOLS[slot % SYMBOLS.length] };
      const error = trace.error_y ? { error_y: { ...trace.error_y, color: ink } } : {};
      return { ...own, ...error, marker, line: { color: ink, width: 2, dash, ...trace.line } };
    }
    if (role === "kept") return { ...own, ...edgeStyle(trace, colour("ink"), 1.5, "solid") };
    if (role === "dropped") return { ...own, ...edgeStyle(trace, colour("c6"), 1.3, "dot") };
    const line = { color: colour("page"), width: 1.5 }; // role "nodes": their colours begin after those of the edges
    return { ...own, marker: { ...trace.marker, opacity: 1, color: colour(`c${(slot - 2) % COLOURS}`), line } };
  }

  const edgeStyle = (trace, ink, width, dash) => ({
    line: { color: ink, width, dash },
    ...(trace.marker ? { marker: { ...trace.marker, color: ink } } : {}),
  });

  function framed(layout) {
    const [ink, soft, rule] = ["ink", "soft", "rule"].map(colour);
    const axis = (given = {}) => ({
      ...given,
      title: { ...(given.title || {}), font: { size: 13 }, standoff: 8 },
      gridcolor: rule, linecolor: rule, zerolinecolor: rule, tickcolor: rule, tickfont: { color: soft, size: 12 },
      fixedrange: matchMedia("(pointer: coarse)").matches, // else a finger on the chart could not scroll the page
    });
    return {
      ...layout,
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      height: layout.height || 380, autosize: true, showlegend: false, dragmode: "zoom",
      margin: { l: 8, r: 12, t: 12, b: 8, ...(layout.margin || {}) },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      hoverlabel: { bgcolor: colour("panel"), bordercolor: soft, font: { color: ink }, align: "left" },
      hovermode: "closest",
    };
  }

  function paint(box) {
    const chart = data.charts[box.id];
    box.dataset.drawn = "yes";
    return Plotly.react(box, chart.traces.map((trace) => dressed(trace, box)), framed(chart.layout), {
      displayModeBar: false, responsive: true, doubleClick: "reset",
    });
  }

  const drawn = () => all(".chart[data-drawn]");
  const visible = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        visible.unobserve(target);
        if (!target.dataset.drawn) paint(target);
      }
    }
  }, { rootMargin: "400px" });

  // Neighbourhoods ----------------------------------------------------------------------------------------------------
  const NEIGHBOURS = 24, NODES = 48; // of one drawing: more would be a tangle

  function neighbourhoods(box) {
    const graph = data.drawings[box.id];
    const count = graph.degrees[0].length;
    const near = Array.from({ length: count }, () => []);
    graph.tails.forEach((tail, edge) => {
      near[tail].push([graph.heads[edge], edge]);
      near[graph.heads[edge]].push([tail, edge]);
    });
    const called = (at) => graph.labels ? graph.labels[at] : String(graph.nodes ? graph.nodes[at] : at);
    const spread = (list, most) =>
      list.length <= most ? list : Array.from({ length: most }, (_, i) => list[Math.floor((i * list.length) / most)]);
    const others = (at) => [...new Set(near[at].map(([other]) => other))].filter((other) => other !== at);

    function places(centre) {
      const found = new Map([[centre, [0, 0, 0]]]); // x, y, steps from the centre
      const first = spread(others(centre), NEIGHBOURS);
      const around = (radius, angle) => [radius * Math.cos(angle), radius * Math.sin(angle), radius];
      const step = (2 * Math.PI) / Math.max(first.length, 1);
      first.forEach((node, i) => found.set(node, around(1, i * step)));
      const share = Math.max(1, Math.floor((NODES - found.size) / Math.max(first.length, 1)));
      first.forEach((node, i) => {
        const fresh = others(node).filter((other) => !found.has(other));
        const taken = spread(fresh, Math.min(share, NODES - found.size));
        taken.forEach((other, j) => found.set(other, around(2, (i + (j + 1) / (taken.length + 1) - 0.5) * step)));
      });
      return found;
    }

    function lines(found, kept) {
      const x = [], y = [], sizes = [];
      const edges = new Set([...found.keys()].flatMap((node) => near[node].map(([, edge]) => edge)));
      for (const edge of edges) {
        const [from, to] = [found.get(graph.tails[edge]), found.get(graph.heads[edge])];
        if (from && to && from[2] + to[2] < 4 && (graph.kept[edge] === "1") === kept) {
          x.push(from[0], to[0], null);
          y.push(from[1], to[1], null);
          sizes.push(0, 11, 0);
        }
      }
      const arrows = { marker: { symbol: "arrow", angleref: "previous", size: sizes, standoff: 7 }, mode: "lines+markers" };
      return {
        type: "scatter", mode: "lines", x, y, hoverinfo: "skip", ...(graph.directed ? arrows : {}),
        meta: { group: kept ? "kept edges" : "dropped edges", role: kept ? "kept" : "dropped" },
      };
    }

    function nodes(found, group, members, centre) {
      const say = (at) => {
        const kind = graph.classes ? `<br>class ${graph.classes[at]}` : "";
        return `<b>${escaped(called(at))}</b>${kind}<br>${graph.degrees[1][at]} of ${graph.degrees[0][at]} edges kept`;
      };
      const named = found.size <= 18 ? members : members.filter((at) => at === centre);
      return {
        type: "scatter", mode: "markers+text",
        x: members.map((at) => found.get(at)[0]), y: members.map((at) => found.get(at)[1]),
        marker: { size: members.map((at) => (at === centre ? 20 : 12)) },
        text: members.map((at) => (named.includes(at) ? escaped(called(at)) : "")), textposition: "top center",
        hoverinfo: "text", hovertext: members.map(say), customdata: members, cliponaxis: false,
        meta: { group, role: "nodes" },
      };
    }

    function show(centre) {
      const found = places(centre);
      const groups = data.groups[box.dataset.scope].slice(2);
      const groupOf = (at) => (groups.length === 1 ? groups[0] : groups[graph.names.indexOf(graph.classes[at])]);
      const bare = { visible: false, range: [-2.35, 2.35], fixedrange: true };
      data.charts[box.id] = {
        traces: [
          lines(found, false), lines(found, true),
          ...groups.map((group) => nodes(found, group, [...found.keys()].filter((at) => groupOf(at) === group), centre)),
        ],
        layout: { xaxis: bare, yaxis: { ...bare, scaleanchor: "x" }, height: Math.min(520, Math.max(box.clientWidth, 300)) },
      };
      const within = new Set([centre, ...others(centre), ...others(centre).flatMap(others)]).size;
      const part = within > found.size ? ` ${found.size} of the ${within} nodes within two steps are drawn.` : "";
      const [before, after] = [graph.degrees[0][centre], graph.degrees[1][centre]];
      const status = box.parentElement.querySelector(".status");
      status.textContent = `Node ${called(centre)} keeps ${after} of its ${before} edges.${part}`;
      if (!box.dataset.drawn) return;
      paint(box);
    }

    const form = box.parentElement.querySelector(".choose");
    const list = form.querySelector("select"), input = form.querySelector("input");
    const may = new Set(graph.whole ? [] : graph.centres.map(([at]) => at));
    const refuse = (text) => { box.parentElement.querySelector(".status").textContent = text; };
    const go = (at) => {
      if (!graph.whole && !may.has(at)) return refuse(`Node ${called(at)} cannot be the centre: the page holds a sample of the graph.`);
      list.value = [...list.options].some((option) => option.value === String(at)) ? String(at) : "";
      show(at);
    };
    list.addEventListener("change", () => { if (list.value !== "") go(Number(list.value)); });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const asked = input.value.trim();
      const at = Array.from({ length: count }, (_, i) => i).find((i) => called(i) === asked);
      if (at === undefined) refuse(`There is no node ${asked} on this page.`);
      else go(at);
    });
    list.value = String(graph.first);
    show(graph.first);
    paint(box);
    box.on("plotly_click", ({ points }) => {
      if (points[0] && points[0].customdata !== undefined) go(points[0].customdata);
    });
  }

  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Legends -----------------------------------------------------------------------------------------------------------
  function refresh(scope) {
    const off = hidden[scope] || new Set();
    for (const key of all(`.legend[data-scope="${scope}"] .key`)) key.setAttribute("aria-pressed", String(!off.has(key.dataset.group)));
    for (const row of all(`tr[data-scope="${scope}"]`)) row.hidden = off.has(row.dataset.group);
    for (const box of drawn()) if (box.dataset.scope === scope) paint(box);
  }

  for (const legend of all(".legend")) {
    const scope = legend.dataset.scope;
    const groups = all(".key", legend).map((key) => key.dataset.group);
    legend.addEventListener("click", (event) => {
      const key = event.target.closest("button");
      if (!key) return;
      const off = hidden[scope] || (hidden[scope] = new Set());
      if (!key.dataset.group) off.clear();
      else if (!off.delete(key.dataset.group)) off.add(key.dataset.group);
      refresh(scope);
    });
    legend.addEventListener("dblclick", (event) => {
      const key = event.target.closest(".key");
      if (!key) return;
      hidden[scope] = new Set(groups.filter((group) => group !== key.dataset.group));
      refresh(scope);
    });
  }

  // Tables ------------------------------------------------------------------------------------------------------------
  const valueOf = (cell) => (cell.dataset.value === undefined ? cell.textContent : cell.dataset.value === "" ? null : Number(cell.dataset.value));

  function compare(a, b) {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // empty cells stay last, either way
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  for (const table of all("table")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = all("tbody tr", table).map((row) => [valueOf(row.cells[column]), row]);
      rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : (down ? -1 : 1) * compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  // A text that a spreadsheet would take for a formula gets an apostrophe; numbers stay numbers.
  const quoted = (value) => {
    let text = value === null ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };

  function csvOf(table) {
    const heads = all("thead th", table);
    const wide = heads.map((_, column) => all("tbody tr", table).some((row) => row.cells[column].dataset.half !== undefined));
    const lines = [heads.flatMap((head, i) => {
      const name = head.textContent.trim();
      return wide[i] ? [name, `${name}, half width of the 95 % interval`] : [name];
    })];
    for (const row of all("tbody tr", table)) {
      if (row.hidden) continue;
      lines.push([...row.cells].flatMap((cell, i) => {
        const half = cell.dataset.half === undefined ? null : Number(cell.dataset.half);
        return wide[i] ? [valueOf(cell), half] : [valueOf(cell)];
      }));
    }
    return lines.map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
  }

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const fileName = (title) => title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table";

  document.addEventListener("click", (event) => {
    const tool = event.target.closest("[data-tool]");
    if (!tool) return;
    const figure = tool.closest("figure"), name = figure ? fileName(figure.dataset.title) : "";
    if (tool.dataset.tool === "csv") save(`${name}.csv`, csvOf(figure.querySelector("table")), "text/csv;charset=utf-8");
    if (tool.dataset.tool === "svg") Plotly.downloadImage(figure.querySelector(".chart"), { format: "svg", filename: name, width: 900, height: 520 });
    if (tool.dataset.tool === "copy") {
      const text = tool.parentElement.querySelector("pre").textContent;
      navigator.clipboard.writeText(text).then(() => { tool.textContent = "Copied"; }, () => { tool.textContent = "Select and copy"; });
    }
  });

  // Light, dark, print ------------------------------------------------------------------------------------------------
  const repaint = () => drawn().forEach(paint);
  const button = document.getElementById("theme");
  const WORDS = { auto: "Colours: auto", light: "Colours: light", dark: "Colours: dark" };
  function wear(theme) {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = WORDS[theme];
    repaint();
  }
  let theme = "auto";
  try { theme = localStorage.getItem("graphsparse-theme") || "auto"; } catch { /* a browser may forbid it for files */ }
  if (!(theme in WORDS)) theme = "auto";
  button.hidden = false;
  button.addEventListener("click", () => {
    const names = Object.keys(WORDS);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    try { localStorage.setItem("graphsparse-theme", theme); } catch { /* it lasts as long as the page then */ }
    wear(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  const SHEET = 680; // pixels of a printed line: A4 less its margins
  let closed = [];
  addEventListener("beforeprint", () => {
    root.dataset.printing = "yes";
    closed = all("details:not([open])");
    closed.forEach((part) => { part.open = true; });
    for (const box of all(".chart")) {
      paint(box);
      Plotly.relayout(box, { autosize: false, width: SHEET });
    }
  });
  addEventListener("afterprint", () => {
    delete root.dataset.printing;
    closed.forEach((part) => { part.open = false; });
    repaint();
  });

  wear(theme);
  for (const box of all(".chart")) {
    if (data.drawings[box.id]) neighbourhoods(box);
    else visible.observe(box);
  }
})();
