/**
 * Draws a run: time to the right, the events' numbers upwards. What arrives live climbs along the server's pace. Without a
 * connection the line stops and the pace goes on; a replay then catches up in one leap.
 */

const MARGIN = { top: 30, right: 16, bottom: 42, left: 46 };
/** The height of the lane below the axis that shows the connection's states. */
const LANE = 8;
const FONT = '12px -apple-system, "Segoe UI", Inter, "Helvetica Neue", Arial, sans-serif';
const NO_CONNECTION = new Set(['waiting', 'offline', 'connecting', 'gaveup']);
/** Words for the happenings that the time axis marks. */
const MARKS = { cut: 'cut', offline: 'offline', reload: 'reload', gap: 'gap', restart: 'restart', node: 'other node' };

export class Timeline {
  #canvas;
  #pen;
  /** @type {import('./run.js').Run | null} */
  #run = null;
  #colors = {};
  #still = matchMedia('(prefers-reduced-motion: reduce)');
  #asked = false;
  /** The labels that this drawing has. @type {Array<{ left: number, width: number, y: number }>} */
  #labels = [];

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext('2d');
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#fit());
  }

  show(run) {
    this.#run = run;
    this.draw();
  }

  /** Draws before the next frame, or at a quarter of a second's pace where motion is to be reduced. */
  draw() {
    if (this.#asked) return;
    this.#asked = true;
    const draw = () => {
      this.#asked = false;
      this.#draw();
    };
    if (this.#still.matches) setTimeout(draw, 250);
    else requestAnimationFrame(draw);
  }

  #fit() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    this.#canvas.width = Math.round(width * devicePixelRatio);
    this.#canvas.height = Math.round(height * devicePixelRatio);
    const style = getComputedStyle(this.#canvas);
    for (const name of ['ink', 'muted', 'line', 'live', 'replayed', 'replayed-mark', 'broken', 'broken-wash', 'card']) {
      this.#colors[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.#draw();
  }

  #draw() {
    const pen = this.#pen;
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    const [width, height] = [this.#canvas.width / devicePixelRatio, this.#canvas.height / devicePixelRatio];
    pen.clearRect(0, 0, width, height);
    pen.font = FONT;
    this.#labels = [];
    if (width < 1 || height < 1) return;
    const scale = new Scale(this.#run, width, height);
    this.#axes(scale);
    if (!this.#run) return;
    this.#withoutConnection(scale);
    this.#pace(scale);
    this.#tokens(scale);
    this.#states(scale);
    this.#marks(scale);
    this.#losses(scale);
    this.#replays(scale);
  }

  #axes({ x, y, left, right, bottom, ticksT, ticksS }) {
    const pen = this.#pen;
    pen.lineWidth = 1;
    pen.strokeStyle = this.#colors.line;
    pen.fillStyle = this.#colors.muted;
    pen.textAlign = 'right';
    pen.textBaseline = 'middle';
    for (const s of ticksS) {
      this.#line(left, y(s), right, y(s));
      pen.fillText(s.toLocaleString('en'), left - 8, y(s));
    }
    pen.textAlign = 'center';
    pen.textBaseline = 'top';
    for (const t of ticksT) pen.fillText(`${t / 1000} s`, x(t), bottom + LANE + 12);
  }

  /** Shades the times without a connection, and says how long they were. */
  #withoutConnection({ x, top, bottom }) {
    const pen = this.#pen;
    pen.textAlign = 'center';
    pen.textBaseline = 'bottom';
    for (const { from, to } of outages(this.#run)) {
      const [start, end] = [x(from), Math.max(x(to), x(from) + 2)];
      pen.fillStyle = this.#colors['broken-wash'];
      pen.fillRect(start, top, end - start, bottom - top);
      pen.strokeStyle = pen.fillStyle = this.#colors.broken;
      pen.setLineDash([2, 3]);
      this.#line(start, top, start, bottom);
      pen.setLineDash([]);
      const words = `${((to - from) / 1000).toFixed(1)} s`;
      if (pen.measureText(words).width + 8 < end - start) pen.fillText(words, (start + end) / 2, bottom - 6);
    }
  }

  /** The line along which events are made, as the first ones that came live show. */
  #pace({ x, y, maxT }) {
    const { plan, arrivals, tokens, end } = this.#run;
    const pause = 1000 / plan.rate;
    // An event may come late, but never before it is made.
    let begin = Infinity;
    for (const { at, s, replayed } of arrivals) if (!replayed) begin = Math.min(begin, at - s * pause);
    if (begin === Infinity) begin = 0;
    const last = end && end !== 'gaveup' ? Math.max(tokens.length - 1, 0) : plan.n - 1;
    const pen = this.#pen;
    pen.strokeStyle = this.#colors.muted;
    pen.setLineDash([1, 4]);
    pen.lineWidth = 1.5;
    const from = Math.max(0, -begin / pause);
    const to = Math.min(last, (maxT - begin) / pause);
    this.#line(x(begin + from * pause), y(from), x(begin + to * pause), y(to));
    pen.setLineDash([]);
    pen.lineWidth = 1;
  }

  /** Draws what is lost as an empty place beside the events that came instead. */
  #losses({ x, y, right }) {
    const pen = this.#pen;
    pen.textBaseline = 'middle';
    for (const { from, to, at } of this.#run.lost) {
      const [high, low] = [y(to), y(from)];
      pen.strokeStyle = this.#colors.broken;
      pen.setLineDash([3, 2]);
      pen.strokeRect(x(at) - 4, high, 8, Math.max(low - high, 2));
      pen.setLineDash([]);
      pen.fillStyle = this.#colors.broken;
      this.#labelBeside(`${to - from + 1} lost`, x(at), (high + low) / 2, right);
    }
  }

  /** Live events are dots, replayed ones dashes: the colours alone need not be told apart. */
  #tokens({ x, y }) {
    const pen = this.#pen;
    const { arrivals } = this.#run;
    for (const { at, s, replayed } of arrivals) {
      const [px, py] = [x(at), y(s)];
      pen.fillStyle = replayed ? this.#colors['replayed-mark'] : this.#colors.live;
      if (replayed) {
        pen.fillRect(px - 4, py - 0.75, 8, 1.5);
      } else {
        pen.beginPath();
        pen.arc(px, py, 1.8, 0, 2 * Math.PI);
        pen.fill();
      }
    }
    const newest = arrivals.at(-1);
    if (!newest || this.#run.end) return;
    pen.strokeStyle = newest.replayed ? this.#colors['replayed-mark'] : this.#colors.live;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x(newest.at), y(newest.s), 6, 0, 2 * Math.PI);
    pen.stroke();
    pen.lineWidth = 1;
  }

  /** Says beside each replay how many events it brought. */
  #replays({ x, y, right }) {
    const pen = this.#pen;
    pen.textBaseline = 'middle';
    pen.fillStyle = this.#colors.replayed;
    for (const { from, to, at } of replays(this.#run.arrivals)) {
      if (y(from) - y(to) < 10) continue;
      this.#labelBeside(`${to - from + 1} replayed`, x(at), (y(from) + y(to)) / 2, right);
    }
  }

  /** A lane below the plot: thick while connected, thin while not. */
  #states({ x, bottom }) {
    const pen = this.#pen;
    const { states, now } = this.#run;
    for (const [index, { at, state }] of states.entries()) {
      if (state !== 'open' && !NO_CONNECTION.has(state)) continue;
      const end = states[index + 1]?.at ?? now;
      pen.fillStyle = state === 'open' ? this.#colors.live : this.#colors.broken;
      const height = state === 'open' ? LANE : LANE / 4;
      pen.fillRect(x(at), bottom + 6 + (LANE - height) / 2, Math.max(x(end) - x(at), 1), height);
    }
  }

  /** Names what happened, above the plot; a word that has no room is left out. */
  #marks({ x, top, bottom, right }) {
    const pen = this.#pen;
    pen.textBaseline = 'alphabetic';
    let free = 0;
    for (const { at, kind } of this.#run.happenings) {
      const word = kind === 'end' ? this.#run.end : MARKS[kind];
      if (!word) continue;
      const half = pen.measureText(word).width / 2;
      const px = x(at);
      pen.strokeStyle = kind === 'end' ? this.#colors.ink : this.#colors.broken;
      pen.fillStyle = pen.strokeStyle;
      if (kind !== 'offline' && kind !== 'cut') this.#line(px, top, px, bottom);
      const center = Math.min(px, right - half);
      if (center - half < free) continue;
      free = center + half + 8;
      pen.textAlign = 'center';
      pen.fillText(word, center, top - 9);
    }
  }

  /** Writes to the right of a place, or to its left where there is no room; not over another label. */
  #labelBeside(words, x, y, right) {
    const pen = this.#pen;
    const { width } = pen.measureText(words);
    const isTight = x + 12 + width > right;
    const left = isTight ? x - 12 - width : x + 12;
    const hides = (other) => Math.abs(other.y - y) < 14 && other.left < left + width && left < other.left + other.width;
    if (this.#labels.some(hides)) return;
    this.#labels.push({ left, width, y });
    pen.textAlign = 'left';
    pen.strokeStyle = this.#colors.card;
    pen.lineWidth = 4;
    pen.strokeText(words, left, y);
    pen.fillText(words, left, y);
    pen.lineWidth = 1;
  }

  #line(x1, y1, x2, y2) {
    this.#pen.beginPath();
    this.#pen.moveTo(x1, y1);
    this.#pen.lineTo(x2, y2);
    this.#pen.stroke();
  }
}

/** Where a time and a number lie on the canvas. */
class Scale {
  constructor(run, width, height) {
    const planned = run ? (1000 * run.plan.n) / run.plan.rate : 50_000;
    this.maxT = Math.max(planned * 1.06, run ? run.now * 1.03 : 0, 4000);
    this.maxS = Math.max(run?.plan.n ?? 600, run?.tokens.length ?? 0);
    this.left = MARGIN.left;
    this.right = width - MARGIN.right;
    this.top = MARGIN.top;
    this.bottom = height - MARGIN.bottom;
    this.x = (t) => this.left + (t / this.maxT) * (this.right - this.left);
    this.y = (s) => this.bottom - (s / this.maxS) * (this.bottom - this.top);
    this.ticksT = ticks(this.maxT, (this.right - this.left) / 80, 1000);
    this.ticksS = ticks(this.maxS, (this.bottom - this.top) / 60, 1);
  }
}

/** Round numbers from zero to a maximum, no more of them than wanted. */
function ticks(max, wanted, unit) {
  const rough = Math.max(max / Math.max(wanted, 1), unit);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, index) => index * step);
}

/** The times without a connection, joined: an attempt that fails does not end one. */
function outages({ states, now }) {
  const found = [];
  let from = null;
  let connected = false;
  for (const { at, state } of states) {
    if (NO_CONNECTION.has(state)) {
      if (connected) from ??= at;
    } else if (from !== null) {
      found.push({ from, to: at });
      from = null;
    }
    connected ||= state === 'open';
  }
  if (from !== null) found.push({ from, to: now });
  return found;
}

/** The replays among the arrivals: those that follow one another and came at nearly the same time. */
function replays(arrivals) {
  const found = [];
  for (const { at, s, replayed } of arrivals) {
    if (!replayed) continue;
    const last = found.at(-1);
    if (last?.to === s - 1 && at - last.at < 1000) last.to = s;
    else found.push({ from: s, to: s, at });
  }
  return found;
}
