/** Why a seam is in the text, by what happened there. */
const SEAMS = { cut: 'the connection broke here', offline: 'offline from here', reload: 'the page was reloaded here' };

/** The text as it arrives. What was replayed is marked, and so is each place where the connection broke. */
export class Transcript {
  #place;
  #paragraph;
  #piece = null;
  #pieceReplayed = null;
  #empty;
  /** Whether the end is in view. Whoever has scrolled back reads there, and is left in peace. */
  #follows = true;
  #top = 0;
  #scrolls = false;

  /** @param {HTMLElement} place a scrolling region */
  constructor(place) {
    this.#place = place;
    this.#empty = place.firstElementChild;
    place.addEventListener('scroll', () => this.#scrolled());
  }

  /** Shows a whole run anew. */
  show(run) {
    this.#clear();
    if (!run) return this.#place.replaceChildren(this.#empty);
    const seams = run.happenings.filter(({ kind }) => kind in SEAMS);
    const gaps = run.lost;
    for (let s = 0; s < run.tokens.length; s += 1) {
      while (seams[0]?.s <= s) this.seam(seams.shift().kind);
      const gap = gaps.find(({ from }) => from === s);
      if (gap) this.gap(gap.to - gap.from + 1);
      if (run.tokens[s]) this.add(run.tokens[s]);
    }
    for (const { kind } of seams) this.seam(kind);
  }

  add({ text, replayed }) {
    // Lines of the source end anywhere; only an empty one begins a paragraph.
    if (this.#paragraph === null || /\n\s*\n/.test(text)) this.#begin();
    if (this.#piece === null || this.#pieceReplayed !== replayed) {
      this.#piece = document.createElement('span');
      this.#piece.className = replayed ? 'replayed' : 'live';
      this.#pieceReplayed = replayed;
      this.#paragraph.append(this.#piece);
    }
    this.#piece.append(text.replace(/\s+/g, ' ').replaceAll('_', ''));
    this.#followSoon();
  }

  seam(kind) {
    if (kind in SEAMS) this.#mark('seam', '', SEAMS[kind]);
  }

  gap(count) {
    this.#mark('gap', ` ${count} events lost `, `a gap of ${count} events`);
  }

  #mark(name, text, label) {
    const paragraph = this.#paragraph ?? this.#begin();
    if (name === 'seam' && paragraph.lastElementChild?.className === name) return;
    const mark = document.createElement('span');
    mark.className = name;
    mark.textContent = text;
    mark.title = label;
    mark.setAttribute('role', 'img');
    mark.setAttribute('aria-label', label);
    paragraph.append(mark);
    this.#piece = null;
  }

  #begin() {
    this.#paragraph = document.createElement('p');
    this.#place.append(this.#paragraph);
    this.#piece = null;
    return this.#paragraph;
  }

  #clear() {
    this.#place.replaceChildren();
    this.#paragraph = null;
    this.#piece = null;
    this.#follows = true;
    this.#top = 0;
  }

  /** The text may have grown since: only who scrolls up leaves the end, and who comes near it follows again. */
  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#place;
    if (scrollTop < this.#top) this.#follows = false;
    else if (scrollHeight - scrollTop - clientHeight < 40) this.#follows = true;
    this.#top = scrollTop;
  }

  /** Scrolls to the end before the next frame: a replay brings many tokens at once. */
  #followSoon() {
    if (this.#scrolls) return;
    this.#scrolls = true;
    requestAnimationFrame(() => {
      this.#scrolls = false;
      if (this.#follows) this.#place.scrollTop = this.#place.scrollHeight;
    });
  }
}
