// Shows the values under the pointer. The page is whole without it.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const LEFT = 62, RIGHT = 482, TOP = 26, BOTTOM = 198;
const three = (value) => value >= 99.95 ? value.toFixed(0) : String(+value.toFixed(value >= 9.995 ? 1 : 2));
const scaled = (value, steps) => {
  const [size, name] = steps.find(([size]) => value >= size) || steps[steps.length - 1];
  return three(value / size) + name;
};
const show = {
  count: (v) => v < 1e4 ? three(v) : scaled(v, [[1e6, "m"], [1e3, "k"]]),
  micros: (v) => scaled(v, [[1e6, " s"], [1e3, " ms"], [1, " µs"]]),
  bytes: (v) => scaled(v, [[2 ** 30, " GB"], [2 ** 20, " MB"], [2 ** 10, " KB"], [1, " B"]]),
  percent: (v) => three(v) + " %",
  ratio: (v) => three(v) + "×",
};
const time = (s) => data.until < 120 ? three(s) + " s" : `${Math.floor(Math.round(s) / 60)}:${String(Math.round(s) % 60).padStart(2, "0")}`;
const nearest = (seconds) => {
  let best = 0;
  data.x.forEach((x, i) => { if (Math.abs(x - seconds) < Math.abs(data.x[best] - seconds)) best = i; });
  return best;
};
const figures = [...document.querySelectorAll("figure")].map((figure) => {
  const svg = figure.querySelector("svg");
  const cursor = document.createElementNS(svg.namespaceURI, "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  return { svg, cursor, output: figure.querySelector("output"), chart: data.charts[figure.dataset.chart] };
});
const point = (at) => {
  for (const { cursor, output, chart } of figures) {
    if (at === null) { cursor.removeAttribute("d"); output.textContent = ""; continue; }
    const x = LEFT + data.x[at] / Math.max(data.until, 0.001) * (RIGHT - LEFT);
    cursor.setAttribute("d", `M${x.toFixed(1)} ${TOP}V${BOTTOM}`);
    const values = chart.names.map((name, i) => [name, chart.values[i][at]]).filter(([, v]) => v !== null);
    output.textContent = [time(data.x[at]), ...values.map(([name, v]) => `${name} ${show[chart.unit](v)}`)].join("  ·  ");
  }
};
for (const { svg } of figures) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * 560;
    point(nearest((x - LEFT) / (RIGHT - LEFT) * data.until));
  });
  svg.addEventListener("pointerleave", () => point(null));
}
