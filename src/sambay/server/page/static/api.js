// The server, as this page speaks with it: models, replies as they come, and Markdown as HTML.

let key = null;
try {
  key = sessionStorage.getItem("sambay-key") ?? localStorage.getItem("sambay-key");
} catch {
  // Storage is forbidden: the key is asked for again after a reload.
}

/** The API key for all further requests, null for none; `remember` keeps it beyond this tab. */
export function setKey(value, remember) {
  key = value;
  try {
    for (const storage of [sessionStorage, localStorage]) storage.removeItem("sambay-key");
    if (value) (remember ? localStorage : sessionStorage).setItem("sambay-key", value);
  } catch {
    // See above.
  }
}

export const hasKey = () => Boolean(key);

/** What went wrong with a request. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** An answer of the server; `body` goes as JSON, `raw` as it is. Throws ApiError, and AbortError. */
export async function request(path, { body, raw, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined && raw === undefined ? "GET" : "POST",
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
      },
      body: body === undefined ? raw : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let told = null;
  try {
    told = (await response.json()).error;
  } catch {
    // Something in between answered, in a form of its own.
  }
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  throw new ApiError(told?.message ?? `The server answered with status ${response.status}.`, {
    status: response.status,
    code: told?.code ?? null,
    retryAfter: Number.isFinite(wait) ? wait : null,
  });
}

/** The models that are served: [{id, max_model_len}]. */
export async function models() {
  const { data } = await (await request("v1/models")).json();
  return data;
}

/** The HTML of texts: [{text, growing}] -> [{blocks, open, rest}]. */
export async function render(parts) {
  const whole = parts.map(({ text, growing = false }) => ({ text: wellFormed(text), growing }));
  return (await (await request("page/render", { body: { parts: whole } })).json()).parts;
}

/** A text whose halves of characters are marks of the same length: they cannot be sent. */
export const wellFormed = (text) =>
  text.replace(/[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]/g, (found) => (found.length === 2 ? found : "\ufffd"));

/**
 * A reply as it comes: yields {reasoning, content, finish, usage}, each there or not.
 * Throws ApiError, also where the stream breaks off, and AbortError.
 */
export async function* stream(body, signal) {
  const response = await request("v1/chat/completions", { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let complete = false;
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const data = event
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart())
          .join("\n");
        if (!data) continue;
        if (data === "[DONE]") {
          complete = true;
          continue;
        }
        yield* pieces(JSON.parse(data));
      }
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("The connection broke off. What came so far is kept.");
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!complete) throw new ApiError("The reply broke off. What came so far is kept.");
}

function* pieces(chunk) {
  if (chunk.error) throw new ApiError(chunk.error.message, { status: 500, code: chunk.error.code });
  const choice = chunk.choices?.[0];
  const { reasoning_content: reasoning, content } = choice?.delta ?? {};
  const finish = choice?.finish_reason;
  if (reasoning || content || finish || chunk.usage) yield { reasoning, content, finish, usage: chunk.usage };
}
