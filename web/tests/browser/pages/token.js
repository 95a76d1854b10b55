// The token that a page was given when its user signed in, and how the page gets another one.

let token = 'one';

/** As the option `headers`: where the server refuses the token, the page asks for another one. */
export async function headers({ unauthorized }) {
  if (unauthorized) signIn(await (await fetch('/token')).text());
  return { authorization: `Bearer ${token}` };
}

/** `EventSource` sends no headers of the page's own, but cookies. */
export function signIn(given) {
  token = given;
  document.cookie = `token=${given}`;
}
