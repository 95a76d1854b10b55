/** A page in jsdom, and components on it whose every render is recorded. Import this before React. */
import { JSDOM } from 'jsdom';

const { window } = new JSDOM('<!doctype html><body></body>', { url: 'http://127.0.0.1/', pretendToBeVisual: true });
globalThis.window = window;
globalThis.document = window.document;
globalThis.FormData = window.FormData;
globalThis.sessionStorage = window.sessionStorage;
Object.defineProperty(globalThis, 'navigator', { value: window.navigator, configurable: true });
globalThis.requestAnimationFrame = (callback) => window.requestAnimationFrame(callback);
globalThis.cancelAnimationFrame = (frame) => window.cancelAnimationFrame(frame);

const { Component, createElement, StrictMode } = await import('react');
const { createRoot } = await import('react-dom/client');
const { useResilientSSE } = await import('../../../react.js');

/**
 * Makes a component that uses the hook. `last` is what its latest render has got, `renders` all of them.
 */
export function probe(name = 'probe') {
  const renders = [];
  const Probe = ({ url, options, children }) => {
    const result = useResilientSSE(url, options);
    renders.push(result);
    const { status, data } = result;
    return createElement('p', { id: name }, `${status} ${JSON.stringify(data)}`, children);
  };
  return {
    Probe,
    renders,
    get last() {
      return renders.at(-1);
    },
    /** The statuses in the order in which they were shown. */
    get statuses() {
      return renders.map(({ status }) => status).filter((status, index, all) => status !== all[index - 1]);
    },
  };
}

/**
 * Renders an element into a container of its own, which is unmounted with the test.
 * @param {import('node:test').TestContext} t
 */
export function mount(t, element, { isStrict = false, ...options } = {}) {
  const container = document.body.appendChild(document.createElement('main'));
  const root = createRoot(container, options);
  const wrap = (inner) => (isStrict ? createElement(StrictMode, null, inner) : inner);
  root.render(wrap(element));
  t.after(() => {
    root.unmount();
    container.remove();
  });
  return { container, render: (next) => root.render(wrap(next)), unmount: () => root.unmount() };
}

/** Shows the message of an error instead of its children. */
export class Boundary extends Component {
  state = {};

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    return this.state.error ? this.state.error.message : this.props.children;
  }
}

export { createElement as h } from 'react';
