// A token as a page gets it from its sign-in, anew for each attempt.

export async function newToken() {
  const response = await fetch('/token');
  return { authorization: `Bearer ${await response.text()}` };
}
