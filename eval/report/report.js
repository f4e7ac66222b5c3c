"use strict";
// The browser through articles. Text of articles and models is only ever set as textContent, never as markup.
const { documents, categories } = JSON.parse(document.getElementById("data").textContent);
const element = Object.fromEntries(
  ["filters", "search", "task", "fault", "from", "to", "confidence-range", "found", "list", "name", "id", "text", "answers", "items",
    "previous", "next"].map((id) => [id, document.getElementById(id)]));
const STATES = { tp: "✓ right", fp: "✗ not gold", fn: "○ missed" };
const SIGNS = { tp: "✓", fp: "✗", fn: "○" };
const STATUSES = { malformed: "answer malformed", truncated: "answer truncated", empty: "answer empty" };
let matching = [];
let current = null;

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function addOptions(select, label, entries) {
  const group = make("optgroup");
  group.label = label;
  for (const [value, words] of entries) {
    const option = make("option", words);
    option.value = value;
    group.append(option);
  }
  if (entries.length) select.append(group);
}

function fillFilters() {
  const items = documents.flatMap((one) => one.items);
  for (const task of new Set(documents.flatMap((one) => Object.keys(one.answers)))) {
    const option = make("option", task);
    option.value = task;
    element.task.append(option);
  }
  addOptions(element.fault, "Items", [["", "everything"], ["wrong", "all faults"], ["tp", "right"], ["fp", "false positives"],
    ["fn", "false negatives"]]);
  const faults = Object.keys(categories).filter((name) => items.some((item) => item.fault === name));
  addOptions(element.fault, "Faults", faults.map((name) => ["fault:" + name, name.replaceAll("_", " ")]));
  const statuses = Object.keys(STATUSES).filter((status) => documents.some((one) => Object.values(one.answers).includes(status)));
  addOptions(element.fault, "Answers", statuses.map((status) => ["status:" + status, STATUSES[status]]));
  element["confidence-range"].hidden = !items.some((item) => item.confidence !== null);
}

function readFilters() {
  const number = (input, otherwise) => (Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : otherwise);
  return { search: element.search.value.trim().toLowerCase(), task: element.task.value, fault: element.fault.value,
    from: number(element.from, 0), to: number(element.to, 1) };
}

function itemMatches(item, filters) {
  if (filters.task && item.task !== filters.task) return false;
  const { fault } = filters;
  if (fault === "wrong" && item.state === "tp") return false;
  if (fault in STATES && item.state !== fault) return false;
  if (fault.startsWith("fault:") && item.fault !== fault.slice(6)) return false;
  // A missed item has no confidence: it shows only while all confidences do.
  if (filters.from <= 0 && filters.to >= 1) return true;
  return item.confidence !== null && item.confidence >= filters.from && item.confidence <= filters.to;
}

function documentMatches(one, items, filters) {
  const { fault, search, task } = filters;
  if (task && !(task in one.answers)) return false;
  if (fault.startsWith("status:")) {
    const asked = Object.entries(one.answers).filter(([name]) => !task || name === task);
    if (!asked.some(([, status]) => status === fault.slice(7))) return false;
  } else if ((fault || filters.from > 0 || filters.to < 1) && !items.length) return false;
  if (!search) return true;
  const haystack = [one.id, one.title, one.article, ...one.items.flatMap((item) => item.names)].join("\n").toLowerCase();
  return haystack.includes(search);
}

function applyFilters() {
  const filters = readFilters();
  matching = documents.map((one) => ({ one, items: one.items.filter((item) => itemMatches(item, filters)) }))
    .filter(({ one, items }) => documentMatches(one, items, filters));
  const items = matching.reduce((sum, entry) => sum + entry.items.length, 0);
  element.found.textContent =
    `${matching.length.toLocaleString("en")} of ${documents.length.toLocaleString("en")} articles, ${items.toLocaleString("en")} items`;
  element.list.replaceChildren(...matching.map(listEntry));
  const kept = matching.findIndex((entry) => entry.one === current);
  show(kept < 0 ? 0 : kept);
}

function listEntry({ one, items }, index) {
  const entry = make("div");
  entry.id = "entry-" + index;
  entry.setAttribute("role", "option");
  entry.append(make("strong", one.title));
  entry.title = `${one.title}\n${one.id}`;
  const count = (state) => items.filter((item) => item.state === state).length;
  entry.append(make("span", Object.keys(SIGNS).map((state) => `${SIGNS[state]} ${count(state)}`).join("   ")));
  entry.addEventListener("click", () => show(index));
  return entry;
}

function show(index) {
  const entry = matching[index];
  current = entry ? entry.one : null;
  for (const [i, option] of [...element.list.children].entries()) option.setAttribute("aria-selected", String(i === index));
  if (entry) {
    element.list.setAttribute("aria-activedescendant", "entry-" + index);
    // scrolls the list alone: scrollIntoView would move the page as well
    const option = element.list.children[index];
    const above = option.offsetTop - element.list.offsetTop;
    if (above < element.list.scrollTop) element.list.scrollTop = above;
    const below = above + option.offsetHeight - element.list.clientHeight;
    if (below > element.list.scrollTop) element.list.scrollTop = below;
  } else element.list.removeAttribute("aria-activedescendant");
  element.name.textContent = entry ? entry.one.title : "";
  element.id.textContent = entry ? entry.one.id : "";
  element.text.replaceChildren(...(entry ? highlight(entry.one.article, entry.items) : []));
  const odd = entry ? Object.entries(entry.one.answers).filter(([, status]) => status !== "ok") : [];
  element.answers.textContent = odd.map(([task, status]) => `${task}: ${STATUSES[status] || status}`).join("; ");
  element.items.tBodies[0].replaceChildren(...(entry ? entry.items.map(itemRow) : []));
  element.previous.disabled = !entry || index === 0;
  element.next.disabled = !entry || index === matching.length - 1;
}

function collectMarks(items) {
  // One mark a place and type, with the sign of every state that an item there is in. Sides of relations are marked only
  // where no name is, or each name would carry the fate of all its relations.
  const names = items.filter((item) => item.task !== "relations");
  const marks = new Map();
  for (const item of names.length ? names : items) {
    for (const [start, end, type] of item.places) {
      const key = [start, end, type].join();
      if (!marks.has(key)) marks.set(key, { key, start, end, type, states: new Set() });
      marks.get(key).states.add(item.state);
    }
  }
  return [...marks.values()];
}

function highlight(text, items) {
  // Marks nest where one place holds another; one that crosses the end of its parent goes on after it, without a second sign.
  const marks = collectMarks(items);
  const order = (a, b) => a.start - b.start || b.end - a.end;
  marks.sort(order);
  function build(from, to) {
    const nodes = [];
    let at = from;
    while (marks.length && marks[0].start < to) {
      const mark = marks.shift();
      if (mark.end > to) {
        marks.push({ ...mark, start: to, goesOn: true });
        mark.end = to;
        marks.sort(order);
      }
      nodes.push(text.slice(at, mark.start), makeMark(mark, build(mark.start, mark.end)));
      at = mark.end;
    }
    nodes.push(text.slice(at, to));
    return nodes;
  }
  return build(0, text.length);
}

function makeMark(mark, inner) {
  const states = Object.keys(SIGNS).filter((state) => mark.states.has(state));
  const made = make("mark", undefined, states[0]);
  made.dataset.key = mark.key;
  made.title = states.map((state) => STATES[state]).join(", ");
  if (!mark.goesOn) made.append(make("i", states.map((state) => SIGNS[state]).join("") + mark.type));
  made.append(...inner);
  return made;
}

function itemRow(item) {
  const row = make("tr");
  const names = (list) => list.join(" → ");
  row.append(make("td", STATES[item.state], "state " + item.state), make("td", item.task));
  const cell = make("td");
  const button = make("button", names(item.names));
  button.type = "button";
  button.addEventListener("click", () => point(item));
  if (item.places.length) cell.append(button);
  else cell.append(make("span", names(item.names)), " ", make("span", "(not in the text)", "quiet"));
  const fault = make("td", item.fault ? item.fault.replaceAll("_", " ") : "");
  if (item.fault) fault.title = categories[item.fault];
  row.append(cell, fault, make("td", item.near ? names(item.near) : ""));
  row.append(make("td", item.confidence === null ? "" : item.confidence.toFixed(2), "number"));
  return row;
}

function point(item) {
  const keys = new Set(item.places.map((place) => place.join()));
  for (const mark of element.text.querySelectorAll("mark")) mark.classList.toggle("shown", keys.has(mark.dataset.key));
  const first = element.text.querySelector("mark.shown");
  if (first) first.scrollIntoView({ block: "center" });
}

function move(step) {
  const index = matching.findIndex((entry) => entry.one === current) + step;
  if (index >= 0 && index < matching.length) show(index);
}

element.list.addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -matching.length, End: matching.length };
  if (!(event.key in steps) || !matching.length) return;
  event.preventDefault();
  const index = matching.findIndex((entry) => entry.one === current) + steps[event.key];
  show(Math.max(0, Math.min(matching.length - 1, index)));
});
element.previous.addEventListener("click", () => move(-1));
element.next.addEventListener("click", () => move(1));
element.filters.addEventListener("input", applyFilters);
element.filters.addEventListener("submit", (event) => event.preventDefault());
element.filters.addEventListener("reset", () => setTimeout(applyFilters));
fillFilters();
applyFilters();
