// The status page: it reads api/snapshot, then what changes from api/events, and draws it.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// h makes an element. Text is only ever set as text.
function h(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === "class") e.className = v;
    else if (k === "style") for (const [p, x] of Object.entries(v)) e.style.setProperty(p, x);
    else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}
function svg(tag, props, text) {
  const e = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
  if (text) e.textContent = text;
  return e;
}
const hidden = (text) => h("span", { class: "hidden" }, text);
const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
const span = (us) => {
  const ms = Math.abs(us) / 1000;
  return ms < 1 ? `${ms.toFixed(2)} ms` : ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
};
const lateness = (us) => `${span(us)} ${us > 0 ? "late" : "early"}`;
const short = (hash) => (hash ? `${hash.slice(0, 8)}…${hash.slice(-4)}` : "");
const sum = (list) => list.reduce((a, b) => a + b, 0);

// What the server said.
const S = { slots: new Map(), faults: new Map(), bundles: new Map(), status: null, version: "", keep: 60, per: 1, every: 1, last: 0, skew: 0 };
let heard = 0; // when it said something last
let announced = false;
const now = () => Date.now() + S.skew;

function take(u) {
  heard = Date.now();
  S.skew = u.now - heard;
  if (u.full) for (const m of [S.slots, S.faults, S.bundles]) m.clear();
  S.version = u.version;
  S.keep = u.keep;
  S.per = u.subblocksPerSlot;
  S.every = u.slotSeconds;
  S.last = u.last;
  if (u.status) {
    S.status = u.status;
    S.status.agreement?.operators.sort((a, b) => order.compare(a.name, b.name));
  }
  for (const s of u.slots) S.slots.set(s.slot, s);
  for (const n of [...S.slots.keys()].sort((a, b) => a - b).slice(0, -S.keep)) S.slots.delete(n);
  for (const f of u.faults) {
    // One that comes back within a minute keeps its id, and is news all the same.
    const had = S.faults.get(f.id);
    if (announced && (!had || (f.open && f.count > had.count))) announce(f.text);
    S.faults.set(f.id, f);
  }
  for (const id of [...S.faults.keys()].slice(0, -50)) S.faults.delete(id);
  for (const b of u.bundles) {
    if (S.bundles.get(b.hash)?.slot !== b.slot) S.bundles.delete(b.hash);
    S.bundles.set(b.hash, b);
  }
  for (const k of [...S.bundles.keys()].slice(0, -24)) S.bundles.delete(k);
  announced = true;
  draw();
}

function announce(text) {
  const log = $("announce");
  log.append(h("p", {}, text));
  while (log.children.length > 5) log.firstChild.remove();
}

// Operators have a letter and a colour, by their place in the set.
const order = new Intl.Collator("en", { numeric: true });
const operators = () => S.status?.agreement?.operators ?? [];
const ZERO = /^0x0{40}$/;
function leader(address) {
  if (ZERO.test(address)) return { letter: "A", class: "l0", name: "this operator" };
  const i = operators().findIndex((o) => o.address === address);
  if (i < 0) return { letter: "?", class: "l7", name: `${address.slice(0, 8)}…` };
  return { letter: String.fromCharCode(65 + (i % 26)), class: `l${i % 8}`, name: operators()[i].name };
}
const mark = (l) => h("span", { class: `mark ${l.class}`, "aria-hidden": "true" }, l.letter);

function chains() {
  const ids = new Set((S.status?.chains ?? []).map((c) => c.id));
  for (const s of S.slots.values()) for (const b of s.subblocks) for (const id of Object.keys(b.txs)) ids.add(id);
  return [...ids].sort((a, b) => (a.length - b.length) || (a < b ? -1 : 1));
}
const sorted = () => [...S.slots.values()].sort((a, b) => a.slot - b.slot);
const of = (s, id) => s.subblocks.filter((b) => id in b.txs);
const arriving = (s, id) => s.subblocks.flatMap((b) => (b.messages ?? []).filter((m) => m.to === id));
const rounds = (s) => Math.max(0, ...s.subblocks.map((b) => b.round ?? 0));

// verdict says in one line how things stand.
function verdict() {
  const st = S.status, a = st?.agreement, list = sorted();
  const newest = list.at(-1);
  const quiet = (now() - S.last) / 1000;
  if (!st) return ["wait", "Connecting", ""];
  if (Date.now() - heard > 12_000) return ["bad", "Connection lost", `This page shows what was known ${Math.round((Date.now() - heard) / 1000)} s ago.`];
  const stuck = S.last ? quiet > Math.max(3, 3 * S.every) : false;
  if (a && !a.quorum && (stuck || !S.last)) return ["bad", "No quorum", `Operators with ${a.online} of ${a.power} power are connected; more than two thirds are needed. No slot is agreed on, and nothing forks.`];
  if (a?.syncing) return ["warn", "Catching up", "This operator fetches what the others have agreed on."];
  if (!newest) return ["wait", "Waiting for the first slot", st.chains.map((c) => c.reason && `chain ${c.id}: ${c.reason}`).filter(Boolean).join("; ")];
  if (stuck) return ["bad", "Standing still", `Nothing was agreed on for ${Math.round(quiet)} s.`];
  const out = st.chains.filter((c) => c.reason && c.id in (newest.absent ?? {}));
  if (out.length) return ["warn", `${out.length === 1 ? "Chain" : "Chains"} ${out.map((c) => c.id).join(", ")} left out`, `${out[0].reason}. The other chains go on.`];
  const behind = Math.round(now() / 1000 - newest.slot);
  if (behind > 2 + S.every) return ["warn", "Behind", `The newest slot is ${behind} s old; slots are caught up one by one.`];
  const off = (a?.operators ?? []).filter((o) => !o.online);
  if (off.length) return ["warn", "In lockstep", `without ${off.map((o) => o.name).join(", ")}: ${a.online} of ${a.power} power is connected, ${needed(a)} is needed.`];
  const n = Object.keys(newest.subblocks[0]?.txs ?? {}).length;
  return ["ok", "In lockstep", `${plural(chains().length, "chain")}, one order, every ${S.every} s${n ? "" : ""}.`];
}

function drawVerdict() {
  const [level, head, text] = verdict();
  const v = $("verdict");
  if (v.className !== `verdict ${level}`) v.className = `verdict ${level}`;
  // Only what changes is set: it is read out.
  if ($("verdict-head").textContent !== head) {
    $("verdict-head").textContent = head;
    document.title = `${head} · Shared sequencer`;
  }
  if ($("verdict-text").textContent !== text) $("verdict-text").textContent = text;
  const a = S.status?.agreement;
  const me = a?.operators.find((o) => o.address === a.self);
  const who = !S.status ? "" : a ? (me ? `seen by ${me.name}` : "seen by a follower") : "one operator";
  if ($("who").textContent !== who) $("who").textContent = who;
}

function drawTiles() {
  const list = sorted().filter((s) => s.subblocks.length);
  const newest = list.at(-1);
  const tile = (title, big, unit, sub, extra, wide) => h("div", { class: `tile${wide ? " wide" : ""}` }, h("h2", {}, title), extra?.before, h("div", { class: "big" }, big, unit && h("small", {}, ` ${unit}`)), extra?.after, h("div", { class: "sub" }, sub));
  const late = list.filter((s) => s.late !== undefined).map((s) => s.late);
  const ordered = [...late].sort((a, b) => a - b);
  const median = ordered[Math.floor(ordered.length / 2)];
  const msgs = list.flatMap((s) => s.subblocks.flatMap((b) => (b.messages ?? []).map((m) => ({ ...m, same: m.fromSlot === s.slot }))));
  const total = sum(msgs.map((m) => m.n)), same = sum(msgs.filter((m) => m.same).map((m) => m.n));
  const txs = sum(list.flatMap((s) => s.subblocks.flatMap((b) => Object.values(b.txs))));
  const secs = list.length > 1 ? newest.slot - list[0].slot + S.every : S.every;
  const height = newest?.subblocks.at(-1)?.height;
  const a = S.status?.agreement;
  const tiles = [
    tile("Slot", newest ? clock(newest.slot) : "–", "", height ? `height ${height.toLocaleString("en")}` : newest ? `${newest.slot}` : "none yet"),
    tile("Handed over", median === undefined ? "–" : span(median), median === undefined ? "" : median > 0 ? "late" : "early", late.length ? `median; worst ${lateness(ordered.at(-1))}` : "no slot yet", { after: spark(late) }, true),
    tile("Transactions", (txs / secs).toFixed(txs / secs < 10 ? 1 : 0), "a second", `${txs.toLocaleString("en")} in ${plural(list.length, "slot")}`),
    tile("Messages", total.toLocaleString("en"), "", total ? `${Math.round((100 * same) / total)} % in the same slot` : "between chains"),
    tile("Bundles", sum(list.map((s) => s.executed)).toLocaleString("en"), "executed", `${sum(list.map((s) => s.failed))} failed, ${S.status?.pending ?? 0} waiting`),
    a ? tile("Operators", `${a.operators.filter((o) => o.online).length} of ${a.operators.length}`, "connected", `power ${a.online} of ${a.power}, needs ${needed(a)}`, { after: power(a) }, true)
      : tile("Operators", "1", "alone", "agrees with nobody"),
  ];
  $("tiles").replaceChildren(...tiles);
}

const needed = (a) => Math.floor((2 * a.power) / 3) + 1;

function power(a) {
  const bar = h("div", { class: "power", "aria-hidden": "true" });
  for (const o of [...a.operators].sort((x, y) => y.online - x.online)) bar.append(h("i", { class: o.online ? leader(o.address).class : "off", style: { flex: o.power } }));
  bar.append(h("b"));
  return bar;
}

// spark draws how late each slot was: bars below the line are early.
function spark(late) {
  const W = 240, H = 48, n = Math.max(late.length, 40);
  const cap = Math.max(50_000, ...late.map((v) => Math.min(Math.abs(v), 2_000_000)));
  const s = svg("svg", { class: "spark", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": late.length ? `How early each of ${late.length} slots was handed over. Newest: ${lateness(late.at(-1))}` : "No slot yet" });
  const over = Math.min(cap, Math.max(0, ...late)), under = Math.min(cap, Math.max(0, ...late.map((v) => -v)));
  const zero = H * Math.min(0.95, Math.max(0.05, over / (over + under || 1)));
  const w = W / n;
  late.forEach((v, i) => {
    const x = W - (late.length - i) * w;
    const size = v > 0 ? Math.max(2, (Math.min(v, cap) / (over || 1)) * zero) : Math.max(2, (-Math.max(v, -cap) / (under || 1)) * (H - zero));
    s.append(svg("rect", { class: v > 0 ? "over" : "under-zero", x: x.toFixed(2), width: Math.max(w - 1.2, 0.8).toFixed(2), y: (v > 0 ? zero - size : zero).toFixed(2), height: size.toFixed(2) }));
  });
  s.append(svg("line", { x1: 0, x2: W, y1: zero, y2: zero }));
  return s;
}

function drawLegend() {
  const a = S.status?.agreement;
  const items = a ? a.operators.map((o) => {
    const l = leader(o.address);
    return h("li", {}, mark(l), hidden(`${l.letter}: `), h("span", {}, o.name), o.address === a.self && "(here)", !o.online && h("span", { class: "off" }, "not connected"), o.online && o.shortened && h("span", { class: "off" }, `missed ${plural(o.missed, "turn")}`));
  }) : [h("li", {}, mark(leader("0x" + "0".repeat(40))), "this operator leads")];
  const key = JSON.stringify(a?.operators ?? null);
  if ($("legend").dataset.key !== key) {
    $("legend").dataset.key = key;
    $("legend").replaceChildren(...items);
  }
}

// The grid. It follows the newest slot until somebody picks one.
const view = { end: null, slot: null, row: 0, columns: [], cells: new Map(), shape: "" };
const FOOT = [["late", "Handed over"], ["bundles", "Bundles"]];
const rowKeys = () => [...chains(), ...FOOT.map((f) => f[0])];

function width() {
  const w = $("lanes").clientWidth, small = w < 620;
  return Math.max(2, Math.min(14, Math.floor((w - (small ? 78 : 132)) / (small ? 88 : 104))));
}

function columns() {
  const all = sorted().map((s) => s.slot), n = width();
  if (view.end !== null) {
    let i = all.findIndex((s) => s >= view.end);
    if (i < 0) i = all.length - 1;
    i = Math.max(i, Math.min(n, all.length) - 1);
    return { list: all.slice(Math.max(0, i - n + 1), i + 1), newer: all.length - 1 - i };
  }
  return { list: all.slice(-(n - 1)), newer: 0, next: true };
}

function drawGrid() {
  const ids = chains(), { list, newer, next } = columns();
  if (!ids.length || !list.length) return;
  const shape = ids.join();
  if (view.shape !== shape) {
    view.shape = shape;
    view.cells.clear();
    const row = (key, cls, head) => h("tr", { class: cls, "data-row": key }, head);
    $("grid").replaceChildren(
      h("thead", {}, h("tr", { "data-row": "head" }, h("th", { scope: "col", class: "rows" }, "Chain"))),
      h("tbody", {}, ...ids.map((id, i) => row(id, `chain${i === ids.length - 1 ? " end" : ""}`, h("th", { scope: "row" }, h("b", {}, id), h("span", {})))), ...FOOT.map(([k, name]) => row(k, "foot", h("th", { scope: "row" }, name)))),
    );
  }
  for (const id of ids) drawRowHead(id);
  view.columns = list;
  const wanted = next ? [...list, "next"] : list;
  const epoch = JSON.stringify(operators().map((o) => o.name));
  for (const tr of $("grid").rows) {
    const key = tr.dataset.row;
    const cells = wanted.map((n) => {
      const k = `${key}/${n}`, s = S.slots.get(n), had = view.cells.get(k);
      const src = n === "next" ? JSON.stringify([S.status?.agreement?.next, list.at(-1)]) : s;
      if (had && had.src === src && had.epoch === epoch) return had.cell;
      const cell = had?.cell ?? h(key === "head" ? "th" : "td", key === "head" ? { scope: "col" } : { tabindex: "-1" });
      cell.dataset.slot = n;
      cell.replaceChildren(...(n === "next" ? nextCell(key, list.at(-1)) : content(key, s, had?.src?.subblocks?.length)));
      view.cells.set(k, { cell, src, epoch });
      return cell;
    });
    const keep = new Set(cells);
    for (const old of [...tr.children].slice(1)) if (!keep.has(old)) old.remove();
    cells.forEach((c, i) => { if (tr.children[i + 1] !== c) tr.insertBefore(c, tr.children[i + 1] ?? null); });
  }
  const known = new Set(wanted.map(String));
  for (const k of view.cells.keys()) if (!known.has(k.slice(k.indexOf("/") + 1))) view.cells.delete(k);
  // One cell is in the order of the tab key.
  const picked = view.slot !== null && list.includes(view.slot) ? view.slot : null;
  const entry = cellAt(picked ?? list.at(-1), Math.min(view.row, rowKeys().length - 1));
  for (const c of $("grid").querySelectorAll("td")) {
    const t = c === entry ? "0" : "-1";
    if (c.getAttribute("tabindex") !== t) c.setAttribute("tabindex", t);
  }
  for (const c of $("grid").querySelectorAll("[data-slot]")) {
    const on = picked !== null && c.dataset.slot === String(picked);
    c.classList.toggle("picked", on);
    if (c.tagName === "TD") c.setAttribute("aria-selected", String(on));
  }
  const f = $("follow");
  f.hidden = view.end === null;
  if (!f.hidden) f.textContent = newer ? `Paused, ${plural(newer, "newer slot")} · Follow live` : "Paused · Follow live";
  requestAnimationFrame(drawArcs);
}

function drawRowHead(id) {
  const span = $("grid").querySelector(`tr[data-row="${CSS.escape(id)}"] th span`);
  const c = S.status?.chains.find((x) => x.id === id);
  const list = sorted(), newest = list.at(-1), b = list.findLast((s) => s.blocks[id])?.blocks[id];
  const left = c?.reason && newest && id in (newest.absent ?? {});
  const text = left ? "left out" : b ? `block ${b.number.toLocaleString("en")}` : "";
  span.classList.toggle("warn", Boolean(left));
  if (span.textContent !== text) span.textContent = text;
}

function content(key, s, before) {
  if (key === "head") {
    const r = rounds(s);
    return [h("b", {}, clock(s.slot)), r > 0 && " ", r > 0 && h("span", { class: "badge", title: `round ${r}: a leader before did not deliver` }, h("span", { "aria-hidden": "true" }, `R${r}`), hidden(`round ${r}`)), s.again && " ", s.again && h("span", { class: "badge" }, "again")].filter(Boolean);
  }
  if (key === "late") return [s.late === undefined ? h("span", { class: "none" }, "–") : h("span", { class: s.late > 0 ? "fail" : "" }, lateness(s.late))];
  if (key === "bundles") {
    const chip = (n, cls, sign, what) => n > 0 && h("span", { class: `chip ${cls}` }, h("span", { "aria-hidden": "true" }, `${sign} ${n}`), hidden(`${n} ${what}`));
    const list = [chip(s.executed, "good", "✓", "executed"), chip(s.failed, "fail", "✕", "failed")].filter(Boolean);
    return list.length ? list : [h("span", { class: "none" }, "–")];
  }
  return chainCell(key, s, before);
}

function chainCell(id, s, before) {
  const subs = of(s, id);
  if (!subs.length) {
    const why = s.absent?.[id];
    if (why) return [h("div", { class: "cell gone", title: why }, "left out", hidden(`: ${why}`))];
    return [h("div", { class: "cell idle" }, "no block")];
  }
  const b = s.blocks[id], per = Math.max(S.per, subs.length);
  const segs = h("div", { class: "segs", "aria-hidden": "true" });
  for (const sub of subs) {
    const l = leader(sub.leader);
    const fresh = s.subblocks.indexOf(sub) >= (before ?? s.subblocks.length - 1);
    segs.append(h("span", { class: `seg ${l.class}${fresh ? " new" : ""}` }, h("span", {}, l.letter, sub.round ? h("sup", {}, "!") : "")));
  }
  // A slot that is late has fewer.
  if (!s.sealed) for (let i = subs.length; i < per; i++) segs.append(h("span", { class: "seg open" }, ""));
  const txs = sum(subs.map((x) => x.txs[id]));
  const names = [...new Set(subs.map((x) => leader(x.leader).name))].join(", ");
  const inn = arriving(s, id);
  const words = `${b ? `Block ${b.number}` : "Block under construction"}, ${plural(subs.length, "subblock")} by ${names}, ${plural(txs, "transaction")}${inn.map((m) => `, ${plural(m.n, "message")} from chain ${m.from}${m.fromSlot === s.slot ? " in this slot" : ` in slot ${clock(m.fromSlot)}`}`).join("")}${s.sealed ? "" : ", not sealed yet"}.`;
  return [h("div", { class: "cell" }, segs, h("div", { class: "nums", "aria-hidden": "true" }, h("span", {}, b ? `#${b.number}` : "…"), h("span", { class: "tx" }, `${txs.toLocaleString("en")} tx`)), hidden(words))];
}

// nextCell shows who is to lead the slot that comes.
function nextCell(key, last) {
  const s = S.slots.get(last);
  if (key === "head") return [h("span", {}, "next")];
  if (key === "late" || key === "bundles") return [hidden("to come")];
  const top = s?.subblocks.at(-1)?.height ?? 0, a = S.status?.agreement;
  const turns = a ? a.next.filter((t) => t.height > top + (s && !s.sealed ? S.per - s.subblocks.length : 0)).slice(0, S.per) : [];
  const segs = h("div", { class: "segs", "aria-hidden": "true" });
  for (let i = 0; i < S.per; i++) segs.append(h("span", { class: "seg open" }, a ? (turns[i] ? leader(turns[i].leader).letter : "") : "A"));
  const name = turns[0] ? leader(turns[0].leader).name : a ? "" : "this operator";
  return [h("div", { class: "cell next" }, segs, h("div", { class: "nums" }, h("span", {}, name ? name : "…")), hidden(", to come"))];
}

const cellAt = (slot, row) => $("grid").querySelector(`tr[data-row="${CSS.escape(rowKeys()[row] ?? "")}"] [data-slot="${slot}"]`);

function pick(slot, row, focus) {
  view.slot = slot;
  view.row = row;
  if (view.end === null) view.end = view.columns.at(-1);
  if (slot > view.end) view.end = slot;
  if (slot < view.columns[0]) { // one column further back
    const all = sorted().map((s) => s.slot), i = all.indexOf(view.end);
    view.end = all[Math.max(0, i - 1)];
    if (slot < all[Math.max(0, all.indexOf(view.end) - width() + 1)]) view.end = all[Math.min(all.length - 1, all.indexOf(slot) + width() - 1)];
  }
  drawGrid();
  drawDetail();
  if (focus) cellAt(slot, row)?.focus({ preventScroll: false });
}

function live() {
  const had = $("grid").contains(document.activeElement) || document.activeElement === $("follow");
  view.end = view.slot = null;
  view.row = 0;
  drawGrid();
  drawDetail();
  if (had) $("slots").querySelector("h2").focus();
}

$("grid").addEventListener("keydown", (e) => {
  const cell = e.target.closest("td");
  if (!cell || e.altKey || e.ctrlKey || e.metaKey) return;
  const all = sorted().map((s) => s.slot);
  const at = cell.dataset.slot === "next" ? all.length : all.indexOf(Number(cell.dataset.slot));
  const row = rowKeys().indexOf(cell.parentElement.dataset.row);
  const go = (i, r) => { e.preventDefault(); pick(all[Math.max(0, Math.min(all.length - 1, i))], Math.max(0, Math.min(rowKeys().length - 1, r)), true); };
  switch (e.key) {
    case "ArrowLeft": return go(at - 1, row);
    case "ArrowRight": return go(at + 1, row);
    case "ArrowUp": return go(at, row - 1);
    case "ArrowDown": return go(at, row + 1);
    case "Home": return go(0, row);
    case "End": return go(all.length - 1, row);
    case "PageUp": return go(at - view.columns.length, row);
    case "PageDown": return go(at + view.columns.length, row);
    case "Enter": case " ": e.preventDefault(); $("detail").focus(); return;
    case "Escape": e.preventDefault(); live();
  }
});
// To come to a cell, by keyboard or pointer, picks it: nothing moves away under the reader.
$("grid").addEventListener("focusin", (e) => {
  const cell = e.target.closest("td");
  if (!cell || cell.dataset.slot === "next") return;
  const slot = Number(cell.dataset.slot), row = rowKeys().indexOf(cell.parentElement.dataset.row);
  if (view.slot !== slot || view.row !== row) pick(slot, row, false);
});
$("detail").addEventListener("keydown", (e) => {
  if (e.key !== "Escape") return;
  if (view.slot !== null) cellAt(view.slot, view.row)?.focus();
});
$("follow").addEventListener("click", live);

// Arcs go from the cell where a message was initiated to the one where it was executed.
const seen = new Set();
function drawArcs() {
  const box = $("lanes").getBoundingClientRect(), out = [];
  const first = view.columns[0], ids = chains();
  for (const n of view.columns) {
    const s = S.slots.get(n);
    for (const m of s ? merge(s) : []) {
      const to = card(m.to, n), from = card(m.from, m.fromSlot);
      if (!to) continue;
      const b = to.getBoundingClientRect();
      let path, label, tip;
      const older = m.fromSlot !== n;
      if (from) {
        const a = from.getBoundingClientRect();
        const down = a.top < b.top, self = m.from === m.to;
        const y1 = (self ? a.bottom : down ? a.bottom : a.top) - box.top, y2 = (self ? b.bottom : down ? b.top : b.bottom) - box.top;
        const dir = self ? -1 : down ? 1 : -1;
        // Those that go down keep to the left, those that go up to the right.
        const x1 = a.left - box.left + a.width * (older ? 0.86 : down ? 0.22 : 0.78), x2 = b.left - box.left + b.width * (older ? 0.14 : down ? 0.44 : 0.56);
        const end = y2 - dir * 7, mid = (y1 + end) / 2 + (self ? 30 : 0);
        path = `M${x1} ${y1}C${x1} ${mid} ${x2} ${mid} ${x2} ${end}`;
        const between = Math.abs(ids.indexOf(m.from) - ids.indexOf(m.to)) > 1;
        if (between) { // past the chains between them, beside their cells
          const g = (down ? b.left - 5 : b.right + 5) - box.left;
          path = `M${x1} ${y1}C${x1} ${y1 + dir * 22} ${g} ${y1 + dir * 8} ${g} ${y1 + dir * 32}L${g} ${end - dir * 28}C${g} ${end - dir * 6} ${x2} ${end - dir * 20} ${x2} ${end}`;
        }
        label = between ? [x2 + 9, end - dir * 8, "start"] : [(x1 + x2) / 2 + (down ? -8 : 8), (y1 + end) / 2 + (self ? 14 : down ? 5 : -4), down ? "end" : "start"];
        tip = `M${x2 - 5} ${end - dir}L${x2} ${y2}L${x2 + 5} ${end - dir}z`;
      } else if (m.fromSlot < first) {
        const src = $("grid").querySelector(`tr[data-row="${CSS.escape(m.from)}"] th`);
        if (!src) continue;
        const a = src.getBoundingClientRect(), down = a.top < b.top, dir = down ? 1 : -1;
        const x1 = a.right - box.left, y1 = (down ? b.top : b.bottom) - box.top - dir * 34, x2 = b.left - box.left + b.width * 0.2, y2 = (down ? b.top : b.bottom) - box.top, end = y2 - dir * 7;
        path = `M${x1} ${y1}C${x2} ${y1} ${x2} ${y1} ${x2} ${end}`;
        label = [(x1 + x2) / 2, y1, "middle"];
        tip = `M${x2 - 5} ${end - dir}L${x2} ${y2}L${x2 + 5} ${end - dir}z`;
      } else continue;
      const key = `${n}/${m.from}/${m.fromSlot}/${m.to}`;
      const p = svg("path", { d: path, class: older ? "older" : "", "data-arc": `${m.from}-${m.to}` });
      out.push(p, svg("path", { d: tip, class: "tip" }));
      if (m.n > 1) out.push(svg("text", { x: label[0], y: label[1], "text-anchor": label[2] }, String(m.n)));
      if (!seen.has(key) && !older && p.animate && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
        const len = 140;
        p.animate([{ strokeDasharray: `0 ${len}` }, { strokeDasharray: `${len} 0` }], { duration: 450, easing: "ease-out" });
      }
      seen.add(key);
    }
  }
  if (seen.size > 4000) seen.clear();
  $("arcs").replaceChildren(...out);
}
const card = (id, slot) => view.cells.get(`${id}/${slot}`)?.cell.querySelector(".cell");

// merge puts the messages of a slot with the same ends together.
function merge(s) {
  const all = new Map();
  for (const b of s.subblocks) for (const m of b.messages ?? []) {
    const k = `${m.from}/${m.fromSlot}/${m.to}`;
    all.set(k, { ...m, n: (all.get(k)?.n ?? 0) + m.n });
  }
  return [...all.values()];
}

const COSTS = [["attributes", "L1 attributes"], ["open", "opening"], ["fill", "filling from pools"], ["bundles", "bundles"], ["verify", "verifying"], ["seal", "sealing"], ["log", "ledger, synced"], ["handOver", "handing over"], ["index", "message history"]];
const FATES = { executed: ["✓", "executed", "good"], safe: ["✓", "safe on L1", "good"], failed: ["✕", "failed", "fail"], expired: ["✕", "expired", "fail"], undone: ["↺", "undone", "fail"], postponed: ["…", "waits", "hold"] };
const fate = (f) => { const [sign, word, cls] = FATES[f] ?? ["?", f, ""]; return h("span", { class: `chip ${cls}` }, h("span", { "aria-hidden": "true" }, sign), word); };
const cols = (...names) => h("thead", {}, h("tr", {}, ...names.map((n) => h("th", { scope: "col", class: n.startsWith("#") && "n" }, n.replace("#", "")))));

let detailKey = "";
function drawDetail() {
  const list = sorted();
  const s = view.slot !== null ? S.slots.get(view.slot) : list.filter((x) => x.late !== undefined).at(-1) ?? list.at(-1);
  if (!s) return;
  const key = JSON.stringify([s.slot, s, view.slot === null, operators().map((o) => o.name)]);
  if (key === detailKey) return;
  detailKey = key;
  $("detail-title").replaceChildren(`Slot ${clock(s.slot)}`, h("small", {}, `${s.slot} · ${view.slot === null ? "the newest sealed" : s.sealed ? "sealed" : "under construction"}`));
  const when = (ms) => { const d = ms - s.slot * 1000; return lateness(d * 1000); };
  const parts = [];
  const ids = chains();
  parts.push(h("h3", {}, "Blocks"), h("div", { class: "wrap" }, h("table", { class: "list" }, cols("Chain", "#Block", "Hash", "#Transactions", "#Gas"), h("tbody", {}, ...ids.map((id) => {
    const b = s.blocks[id];
    if (!b) return h("tr", {}, h("td", {}, id), h("td", { colspan: "4", class: s.absent?.[id] ? "hold" : "none" }, s.absent?.[id] ? `left out: ${s.absent[id]}` : of(s, id).length ? "under construction" : "no block in this slot"));
    return h("tr", {}, h("td", {}, id), h("td", { class: "n" }, b.number.toLocaleString("en")), h("td", { class: "mono", title: b.hash }, b.hash ? short(b.hash) : "follows later"), h("td", { class: "n" }, b.txs.toLocaleString("en")), h("td", { class: "n" }, b.gas.toLocaleString("en")));
  })))));
  parts.push(h("h3", {}, "Subblocks"), h("div", { class: "wrap" }, h("table", { class: "list" }, cols("Height", "Leader", "Agreed", "#Steps", "#Transactions"), h("tbody", {}, ...s.subblocks.map((b) => {
    const l = leader(b.leader);
    return h("tr", {}, h("td", { title: b.hash }, b.height ? b.height.toLocaleString("en") : `${b.index + 1}`), h("td", {}, mark(l), " ", l.name, b.round ? h("span", {}, " ", h("span", { class: "badge" }, `round ${b.round}`)) : ""), h("td", {}, when(b.at)), h("td", { class: "n" }, String(b.steps)), h("td", { class: "n" }, sum(Object.values(b.txs)).toLocaleString("en")));
  })))));
  const msgs = merge(s);
  parts.push(h("h3", {}, "Messages executed"));
  if (msgs.length) parts.push(h("ul", { id: "messages" }, ...msgs.map((m) => h("li", {}, `${m.from} → ${m.to}${m.n > 1 ? ` × ${m.n}` : ""}, `, h("span", { class: "none" }, m.fromSlot === s.slot ? "sent in the same slot" : `sent ${plural(s.slot - m.fromSlot, "second")} before`)))));
  else parts.push(h("p", { class: "none" }, s.subblocks.some((b) => b.unread) ? "Not known here: this operator had not run the subblock when it was agreed on." : "None."));
  const tried = s.subblocks.flatMap((b) => b.bundles ?? []);
  if (tried.length) parts.push(h("h3", {}, "Bundles"), bundleTable(tried.map((b) => ({ ...b, fate: S.bundles.get(b.hash)?.slot === s.slot ? S.bundles.get(b.hash).fate : b.fate })), false));
  if (s.costs) {
    const used = COSTS.filter(([k]) => s.costs[k] > 0), top = Math.max(1, ...used.map(([k]) => s.costs[k]));
    parts.push(h("h3", {}, "What it took here"), h("div", { class: "costs" }, ...used.flatMap(([k, name]) => [h("span", {}, name), h("span", {}, h("i", { style: { width: `${(100 * s.costs[k]) / top}%` } })), h("span", {}, span(s.costs[k]))])));
  }
  $("detail-body").replaceChildren(...parts);
}

function bundleTable(list, slots) {
  return h("div", { class: "wrap" }, h("table", { class: "list" }, cols("Bundle", ...(slots ? ["Slot"] : []), "Chains", "Fate"), h("tbody", {}, ...list.map((b) => h("tr", {}, h("td", { class: "mono", title: b.hash }, short(b.hash)), slots && h("td", {}, clock(b.slot)), h("td", {}, b.chains.join(", ")), h("td", {}, fate(b.fate), b.reason && !["executed", "safe"].includes(b.fate) ? h("span", { class: "none" }, b.reason) : ""))))));
}

const drawn = {};
function once(id, key, make) {
  if (drawn[id] === key) return;
  drawn[id] = key;
  $(id).replaceChildren(...make());
}

function drawLists() {
  const faults = [...S.faults.values()].sort((a, b) => b.open - a.open || b.last - a.last);
  const open = faults.filter((f) => f.open).length;
  $("faults-count").textContent = faults.length ? (open ? `${open} now, ${faults.length} in all` : `${faults.length}, none now`) : "";
  once("faults", JSON.stringify(faults), () => faults.length ? faults.map((f) => h("div", { class: `fault ${f.level}${f.open ? " open" : ""}` },
    h("span", { class: "sign", "aria-hidden": "true" }),
    h("p", {}, hidden(f.level === "bad" ? "Fault: " : "Warning: "), f.text),
    h("span", { class: "state" }, f.open ? "now" : f.count > 1 ? `× ${f.count}` : ""),
    h("small", {}, [f.open || f.count === 1 ? `${f.open ? "since " : ""}${clock(f.first / 1000)}` : `${clock(f.first / 1000)} to ${clock(f.last / 1000)}`, !f.open && f.kind !== "round" && f.last > f.first && f.count === 1 ? `until ${clock(f.last / 1000)}` : "", f.height ? `height ${f.height}` : ""].filter(Boolean).join(" · ")),
  )) : [h("p", { class: "none" }, "None.")]);
  const bundles = [...S.bundles.values()].reverse();
  $("bundles-count").textContent = S.status?.pending ? `${S.status.pending} waiting` : "";
  once("bundles", JSON.stringify(bundles), () => bundles.length ? [bundleTable(bundles, true)] : [h("p", { class: "none" }, "None yet.")]);
}

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawVerdict();
    drawTiles();
    drawLegend();
    drawGrid();
    drawDetail();
    drawLists();
  });
}

// The connection. Without a place among those that are streamed to, the page asks now and then.
async function snapshot() {
  const r = await fetch("api/snapshot", { cache: "no-store" });
  if (!r.ok) throw new Error(`snapshot: ${r.status}`);
  take(await r.json());
}
function stream() {
  const es = new EventSource(`api/events?since=${encodeURIComponent(S.version)}`);
  es.onmessage = (e) => take(JSON.parse(e.data));
  es.addEventListener("beat", (e) => { heard = Date.now(); S.skew = Number(e.data) - heard; draw(); });
  es.onerror = () => {
    if (es.readyState !== EventSource.CLOSED) return; // it tries again by itself
    const ask = setInterval(() => snapshot().catch(() => {}), 3000);
    setTimeout(() => { clearInterval(ask); stream(); }, 15_000);
  };
}
const begin = () => snapshot().then(stream, () => setTimeout(begin, 2000));

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const showTheme = () => $("theme").setAttribute("aria-pressed", String(isDark()));
$("theme").addEventListener("click", () => {
  const t = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = t;
  try { localStorage.setItem("theme", t); } catch { /* for this visit only */ }
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();

new ResizeObserver(draw).observe($("lanes"));
setInterval(() => { if (S.status) drawVerdict(); }, 1000);
$("slots").querySelector("h2").tabIndex = -1;
begin();
