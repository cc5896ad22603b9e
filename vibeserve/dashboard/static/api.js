// Decides how pages ask the server, and what a refusal looks like.

export async function get(path, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const text = asked.toString();
  let response;
  try {
    response = await fetch(text ? `${path}?${text}` : path, { headers: { accept: "application/json" } });
  } catch {
    throw new Error("The dashboard's process does not answer; has it ended?");
  }
  if (response.status === 403) throw new Error("This browser is not let in: open the address that `vibeserve dashboard` printed.");
  const data = await response.json();
  if (!response.ok) throw new Error(data.error ?? `The server answered ${response.status}.`);
  return data;
}

export const view = (run, name, query) => get(`/api/run/${encodeURIComponent(run)}/${name}`, query);
export const page = (run, name) => `/run/${encodeURIComponent(run)}/${name}`;
export const candidate = (run, id) => page(run, `candidate/${encodeURIComponent(id)}`);
