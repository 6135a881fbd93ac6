// Script of a report: it draws the charts from the data in the page, sorts tables, and draws the arrows of the lineage.
// It stores nothing, loads nothing, and sets no markup from the data.
"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("charts").textContent);
  const names = Object.keys(data.charts);
  const printing = matchMedia("print");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const arrays = data.arrays.map(decode);
  const family = getComputedStyle(document.body).fontFamily;
  const themeButton = document.getElementById("theme");

  function decode(stored) {
    if (Array.isArray(stored)) return stored;
    const text = atob(stored.base64);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);  // Uint8Array.from calls a function for each byte
    const types = { i4: Int32Array, f4: Float32Array, f8: Float64Array };
    const values = new types[stored.kind](bytes.buffer);
    const found = new Array(values.length);
    for (let at = 0; at < values.length; at++) found[at] = Number.isFinite(values[at]) ? values[at] : null;
    return found;
  }

  // plotly reads a few HTML tags in texts; names of metrics are no markup.
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
  }

  function isDark(forPrint) {
    if (forPrint || printing.matches) return false;
    return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  }

  function theme(forPrint) {
    const dark = isDark(forPrint);
    return dark
      ? { colours: data.colours.dark, text: "#ececec", muted: "#aab0ba", grid: "#323741", back: "#1b1e24" }
      : { colours: data.colours.light, text: "#1a1a1a", muted: "#595959", grid: "#e4e6ea", back: "#ffffff" };
  }

  function extent(lists) {
    let low = Infinity, high = -Infinity;
    for (const list of lists) for (const value of list) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    return low <= high ? [low, high] : null;
  }

  function axis(spec, look, lists) {
    const made = {
      title: { text: plain(spec.text), font: { size: 12, color: look.text }, standoff: 8 },
      type: spec.log ? "log" : "linear", gridcolor: look.grid, linecolor: look.muted, showline: true,
      tickfont: { size: 11, color: look.muted }, tickcolor: look.muted, zeroline: false, separatethousands: true,
      exponentformat: "e", minexponent: 5, nticks: 7, fixedrange: false, ticklabeloverflow: "allow",
    };
    const found = extent(lists);
    if (spec.log && found) Object.assign(made, logTicks(found));
    if (spec.low !== null || spec.high !== null) {
      const low = spec.low ?? (found ? Math.min(found[0], spec.high) : 0);
      const high = spec.high ?? (found ? Math.max(found[1], spec.low) : 1);
      const beside = 0.02 * (high - low || 1);
      made.range = spec.log ? [Math.log10(low), Math.log10(high)] : [low - beside, high + beside];
    } else if (found && found[0] === found[1] && !spec.log) {
      const beside = Math.abs(found[0]) / 2 || 1;
      made.range = spec.zero ? [0, found[0] + beside] : [found[0] - beside, found[0] + beside];
    } else if (spec.zero) made.rangemode = "tozero";
    if (spec.whole && !spec.log && found && found[1] - found[0] <= 7) { made.dtick = 1; made.tick0 = 0; }
    return made;
  }

  // Ticks with their whole value: plotly shortens those within a decade to one digit.
  function logTicks([low, high]) {
    const decades = Math.log10(high / low);
    const every = Math.max(1, Math.ceil(decades / 7));
    const parts = decades < 1 ? [1, 1.5, 2, 3, 5, 7] : decades < 3 ? [1, 2, 5] : [1];
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += every) {
      for (const part of parts) values.push(Number((part * 10 ** power).toPrecision(3)));
    }
    return { tickmode: "array", tickvals: values, ticktext: values.map(show) };
  }

  // The width of the title and of the longest tick, which has as many digits as the distance of the ticks asks for.
  function leftMargin(axis, lists) {
    const [low, high] = axis.range && axis.type !== "log" ? axis.range : extent(lists) || [0, 1];
    const decimals = Math.max(0, Math.ceil(-Math.log10((high - low || Math.abs(high) || 1) / 6)));
    const ticks = axis.ticktext || [low, high].map((value) => value.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 5) }));
    return 40 + 6.5 * Math.max(...ticks.map((tick) => tick.length));
  }

  function show(value) {
    return value >= 1e6 || value < 1e-4 ? value.toExponential(1).replace(".0", "") : value.toLocaleString("en", { maximumSignificantDigits: 3 });
  }

  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down"];

  function isAlone(y, at) {
    return y[at] !== null && (at === 0 || y[at - 1] === null) && (at + 1 === y.length || y[at + 1] === null);
  }

  function drawLines(chart, look) {
    return chart.lines.map((line) => {
      const y = arrays[line.y];
      const colour = look.colours[line.colour];
      const trace = {
        type: "scatter", name: plain(line.name), x: arrays[line.x], y, connectgaps: false,
        mode: line.draw === "points" ? "markers" : "lines",
        line: { color: colour, width: 1.8, dash: data.dashes[line.dash], shape: line.draw === "steps" ? "hv" : "linear", simplify: false },
        marker: { color: colour, symbol: SYMBOLS[line.dash], size: line.draw === "points" ? 8 : 5 },
        hoverlabel: { namelength: 40 },
      };
      if (line.draw === "line" && line.marked) trace.mode = "lines+markers";
      else if (line.draw === "line" && y.some((_, at) => isAlone(y, at))) {
        trace.mode = "lines+markers";
        trace.marker.size = y.map((_, at) => (isAlone(y, at) ? 5 : 0));
        trace.marker.line = { width: 0 };
      }
      return trace;
    });
  }

  function drawHistogram(chart, look) {
    return [{
      type: "scatter", mode: "lines", x: arrays[chart.edges], y: arrays[chart.counts], fill: "tozeroy",
      line: { shape: "hv", color: look.colours[0], width: 1, simplify: false }, fillcolor: look.colours[0] + "66", name: plain(chart.y.text),
    }];
  }

  function drawBars(chart, look) {
    return chart.groups.map((group) => ({
      type: "bar", name: plain(group.name), x: chart.categories.map((_, at) => at), y: arrays[group.y],
      width: chart.categories.length * chart.groups.length < 3 ? 0.4 : undefined,
      text: group.labels.map(plain), textposition: "outside", cliponaxis: false, textfont: { size: 11, color: look.text },
      marker: { color: look.colours[group.colour] }, hovertemplate: "%{y}<extra></extra>",
    }));
  }

  const DRAW = { lines: drawLines, histogram: drawHistogram, bars: drawBars };

  function figure(chart, look) {
    const traces = DRAW[chart.kind](chart, look);
    const isTime = chart.kind === "lines" && chart.lines.every((line) => line.draw !== "points");
    const layout = {
      paper_bgcolor: look.back, plot_bgcolor: look.back, font: { color: look.text, family },
      margin: { l: 52, r: 24, t: 10, b: 48 }, showlegend: false, bargap: 0.3, hovermode: isTime && chart.lines.length < 9 ? "x unified" : "closest",
      hoverlabel: { bgcolor: look.back, bordercolor: look.muted, font: { color: look.text } },
      xaxis: axis(chart.x, look, traces.map((trace) => trace.x)),
      yaxis: axis(chart.y, look, traces.map((trace) => trace.y)),
      shapes: (chart.markers || []).map((marker) => ({
        type: "line", yref: "paper", y0: 0, y1: 1, x0: marker.value, x1: marker.value,
        line: { color: look.text, width: 1.3, dash: data.dashes[marker.dash] },
      })),
    };
    layout.margin.l = leftMargin(layout.yaxis, traces.map((trace) => trace.y));
    if (chart.categories) Object.assign(layout.xaxis, { tickmode: "array", tickvals: traces[0].x, ticktext: chart.categories.map(plain), showgrid: false });
    return { traces, layout };
  }

  const OPTIONS = {
    responsive: true, displaylogo: false, displayModeBar: false, showTips: false, plotlyServerURL: "", showLink: false, scrollZoom: false,
    doubleClick: "reset",
  };
  const hiddenTraces = {};
  const widened = new Set();

  // With plotly's automatic margins each chart is drawn twice. So the margins are estimated, and automatic where that is too little.
  async function draw(name, forPrint) {
    const place = document.getElementById(`${name}-chart`);
    const { traces, layout } = figure(data.charts[name], theme(forPrint));
    for (const at of hiddenTraces[name] || []) traces[at].visible = false;
    layout.xaxis.automargin = layout.yaxis.automargin = widened.has(name);
    await Plotly.react(place, traces, layout, OPTIONS);
  }

  async function widen() {
    const clipped = names.filter((name) => !widened.has(name) && isClipped(document.getElementById(`${name}-chart`)));
    for (const name of clipped) {
      widened.add(name);
      await draw(name);
    }
  }

  function isClipped(place) {
    const box = place.getBoundingClientRect();
    return [...place.querySelectorAll(".xtick text, .ytick text, .xtitle, .ytitle")].some((text) => {
      const own = text.getBoundingClientRect();
      return own.left < box.left || own.right > box.right || own.bottom > box.bottom;
    });
  }

  async function drawAll(forPrint) {
    for (const name of names) {
      try {
        await draw(name, forPrint);
      } catch (error) {
        const place = document.getElementById(`${name}-chart`);
        place.textContent = `This chart cannot be drawn (${error.message}). Its numbers are below.`;
        place.classList.add("failed");
        console.error(name, error);
      }
    }
    await widen();
    root.dataset.drawn = document.querySelectorAll(".chart .main-svg:first-child").length;
  }

  function showTheme() {
    themeButton.textContent = isDark() ? "Light" : "Dark";
    themeButton.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
    themeButton.hidden = false;
  }

  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
    drawAll();
  });
  prefersDark.addEventListener("change", () => { showTheme(); drawAll(); });
  addEventListener("beforeprint", () => { for (const name of names) draw(name, true); });
  addEventListener("afterprint", () => drawAll());
  let resized;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(widen, 400);  // after plotly has drawn the new size
  });

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const hidden = (hiddenTraces[button.dataset.chart] ||= new Set());
      const at = Number(button.dataset.trace);
      if (!hidden.delete(at)) hidden.add(at);
      button.setAttribute("aria-pressed", String(!hidden.has(at)));
      draw(button.dataset.chart);
    });
  }

  // In a frame made from text, "#place" would be a place of another page.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      const target = document.getElementById(link.getAttribute("href").slice(1));
      event.preventDefault();
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }

  function compare(a, b) {
    const [left, right] = [a, b].map((cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value)));
    if (left !== null && right !== null) return left - right;
    return a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
  }

  function sort(table, column, sign) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const hasNumbers = rows.some((row) => row.cells[column].dataset.value);
    const isLast = (row) => (hasNumbers ? row.cells[column].dataset.value === "" : row.cells[column].textContent.trim() === "");
    const [last, first] = [rows.filter(isLast), rows.filter((row) => !isLast(row))];
    first.sort((a, b) => sign * compare(a.cells[column], b.cells[column]));
    body.append(...first, ...last);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending ? 1 : -1);
    }));
  }

  function drawArrows(graph) {
    const svg = graph.querySelector(".arrows");
    const origin = svg.getBoundingClientRect();
    svg.replaceChildren();
    const add = (path, kind) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
      element.setAttribute("d", path);
      if (kind) element.setAttribute("class", kind);
      svg.append(element);
    };
    for (const card of graph.querySelectorAll(".card")) {
      for (const id of card.dataset.targets.split(" ").filter(Boolean)) {
        const from = card.getBoundingClientRect(), to = document.getElementById(id).getBoundingClientRect();
        const x = from.right - origin.left, y = from.top + from.height / 2 - origin.top;
        const endX = to.left - origin.left - 3, endY = to.top + to.height / 2 - origin.top;
        const bend = (endX - x) / 2;
        add(`M${x} ${y}C${x + bend} ${y} ${endX - bend} ${endY} ${endX - 6} ${endY}`);
        add(`M${endX} ${endY}l-9 -4.5v9z`, "head");
      }
    }
  }

  for (const graph of document.querySelectorAll(".lineage")) new ResizeObserver(() => drawArrows(graph)).observe(graph);

  showTheme();
  drawAll();
})();
