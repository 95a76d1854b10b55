/** The figures that are shown, and what they mean. */
const FIGURES = [
  ['active', 'working', 'Streams whose work runs on this node'],
  ['detached', 'without a reader', 'Streams that are worked on although nobody reads them'],
  ['followers', 'reading the log', 'Connections that are served from the log'],
  ['recorded', 'events recorded', 'Events that the store has acknowledged'],
  ['unheard', 'made unheard', 'Events that were made while nobody read'],
  ['resumed', 'resumed', 'Requests that continued a stream, or asked recovery for it'],
  ['gaps', 'gaps told', 'Gaps that clients were told of'],
  ['lost', 'events lost', 'Events that could not be recorded'],
  ['orphaned', 'orphaned', 'Streams that this node closed because the node that worked on them was gone'],
  ['storeErrors', 'store errors', 'Requests that the store did not serve'],
];

const EVERY = 1000;

/** Shows a node's health, once a second while somebody can see it. */
export class Health {
  #nodes;
  #standing;
  #shown = new Map();

  /**
   * @param {HTMLElement} place gets the figures
   * @param {HTMLElement} standing says so where the node goes down or does not answer
   * @param {import('./nodes.js').Nodes} nodes
   */
  constructor(place, standing, nodes) {
    this.#standing = standing;
    this.#nodes = nodes;
    for (const [name, word, title] of FIGURES) {
      const [row, term, figure] = ['div', 'dt', 'dd'].map((tag) => document.createElement(tag));
      term.textContent = word;
      row.title = title;
      figure.textContent = '–';
      row.append(term, figure);
      place.append(row);
      this.#shown.set(name, figure);
    }
    this.#run();
  }

  async #run() {
    for (;;) {
      if (document.visibilityState === 'visible') await this.#look();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  async #look() {
    const health = await this.#nodes
      .fetch('/healthz')
      .then((response) => response.json())
      .catch(() => null);
    const silent = this.#nodes.offline ? 'not asked' : 'does not answer';
    this.#standing.textContent = !health ? silent : health.draining ? 'goes down' : '';
    if (!health) return;
    for (const [name] of FIGURES) {
      const figure = this.#shown.get(name);
      const value = String(health[name] ?? '–');
      if (figure.textContent === value) continue;
      if (figure.textContent !== '–') flash(figure);
      figure.textContent = value;
    }
  }
}

/** Lights a figure up for a moment; the style sheet leaves that out where motion is to be reduced. */
function flash(figure) {
  figure.classList.remove('moved');
  // Asking for a size has the browser notice that the class was gone.
  void figure.offsetWidth;
  figure.classList.add('moved');
}
