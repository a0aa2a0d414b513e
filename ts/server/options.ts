/**
 * Options of the server: names, defaults and checks, in one place.
 * @module
 */

import { LongcatError } from "../index.js";

/** Options of {@link ApiServer.listen}. `undefined` and `null` mean absent; a wrong value or an unknown name is `OPTION_INVALID`. */
export interface ServerOptions {
  /** Address or name to listen on. Default 127.0.0.1: this machine only. */
  host?: string | null;
  /** Default 8000; 0 takes a free one. */
  port?: number | null;
  /** What `Authorization: Bearer …` must say. Absent: no key, and requests from foreign hosts and origins are refused. */
  apiKey?: string | null;
  /** The model's id. Default: the name of the checkpoint's folder. */
  modelName?: string | null;
  /** Origins whose pages may use the server, such as `https://chat.example`; `*` is all. Default none. */
  cors?: readonly string[] | null;
  /** Further host names that this server is called by; they matter without a key only. */
  allowedHosts?: readonly string[] | null;
  /** Largest body in bytes. Default 4 MiB. */
  maxBodyBytes?: number | null;
  /** Answers that may wait for their turn, beyond the `maxSequences` that run. Default 256. */
  maxQueue?: number | null;
  /** Most connections. Default 1024. */
  maxConnections?: number | null;
  /** Milliseconds for a request's head. Default 10,000. */
  headersTimeoutMs?: number | null;
  /** Milliseconds for a request's body. Default 30,000. */
  bodyTimeoutMs?: number | null;
  /** Milliseconds that a connection may be kept between requests. Default 30,000. */
  idleTimeoutMs?: number | null;
  /** Milliseconds that a client may leave an answer unread before it is cut. Default 30,000. */
  writeTimeoutMs?: number | null;
  /** Milliseconds of silence after which a stream sends a comment. Default 15,000. */
  keepAliveMs?: number | null;
  /** Milliseconds that a drain waits for what is under way. Default 30,000. */
  drainTimeoutMs?: number | null;
  /** Takes a line for the log: failures that no request caused. Default: standard error. */
  onLog?: ((line: string) => void) | null;
}

/** Options after checking, every default filled in. */
export type ResolvedServerOptions = {
  [K in Exclude<keyof ServerOptions, "apiKey" | "modelName">]-?: NonNullable<ServerOptions[K]>;
} & { apiKey: string | undefined; modelName: string | undefined };

const DEFAULTS: Omit<ResolvedServerOptions, "apiKey" | "modelName"> = {
  host: "127.0.0.1",
  port: 8000,
  cors: [],
  allowedHosts: [],
  maxBodyBytes: 4 * 1024 * 1024,
  maxQueue: 256,
  maxConnections: 1024,
  headersTimeoutMs: 10_000,
  bodyTimeoutMs: 30_000,
  idleTimeoutMs: 30_000,
  writeTimeoutMs: 30_000,
  keepAliveMs: 15_000,
  drainTimeoutMs: 30_000,
  onLog: (line) => void process.stderr.write(`${line}\n`),
};

const LONGEST_MS = 24 * 3600 * 1000;

/** Whole numbers: smallest and largest. */
const RANGES = {
  port: [0, 65_535],
  maxBodyBytes: [1024, 1024 ** 3],
  maxQueue: [0, 1_000_000],
  maxConnections: [1, 1_000_000],
  headersTimeoutMs: [1, LONGEST_MS],
  bodyTimeoutMs: [1, LONGEST_MS],
  idleTimeoutMs: [1, LONGEST_MS],
  writeTimeoutMs: [1, LONGEST_MS],
  keepAliveMs: [1, LONGEST_MS],
  drainTimeoutMs: [0, LONGEST_MS],
} as const satisfies Partial<Record<keyof ServerOptions, readonly [number, number]>>;

const NAMES = new Set([...Object.keys(DEFAULTS), "apiKey", "modelName"]);

/** Checks options and fills in what is absent. */
export function resolveServerOptions(options: ServerOptions): ResolvedServerOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));
  for (const name of Object.keys(given))
    if (!NAMES.has(name)) throw refused(name, given[name], `one of the options ${[...NAMES].join(", ")}`);
  for (const [name, [min, max]] of Object.entries(RANGES)) {
    const value: unknown = given[name];
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max)
      throw refused(name, value, `a whole number from ${min} to ${max}`);
  }
  const resolved = { ...DEFAULTS, apiKey: undefined, modelName: undefined, ...given } as ResolvedServerOptions;
  for (const name of ["host", "modelName"] as const)
    if (resolved[name] !== undefined && (typeof resolved[name] !== "string" || resolved[name] === ""))
      throw refused(name, resolved[name], "a name");
  for (const name of ["cors", "allowedHosts"] as const) if (!Array.isArray(resolved[name])) throw refused(name, resolved[name], "an array");
  if (typeof resolved.onLog !== "function") throw refused("onLog", resolved.onLog, "a function");
  checkKey(resolved.apiKey);
  resolved.cors.forEach((origin) => {
    checkOrigin(origin);
  });
  resolved.allowedHosts.forEach((host) => {
    if (typeof host !== "string" || !/^[\w.:[\]-]+$/.test(host)) throw refused("allowedHosts", host, "a host name");
  });
  return resolved;
}

/** A key that a header can carry. Its value is not shown. */
function checkKey(key: unknown): void {
  if (key === undefined) return;
  if (key === "") throw new LongcatError("OPTION_INVALID", "apiKey: an empty key is not accepted; give a key, or none at all");
  if (typeof key !== "string" || !/^[\x21-\x7e]+$/.test(key))
    throw new LongcatError(
      "OPTION_INVALID",
      "apiKey: the key has characters that a header cannot carry; give printable ASCII without blanks",
    );
}

function checkOrigin(origin: unknown): void {
  const accepted = "an origin such as https://chat.example, or *";
  if (origin === "*") return;
  if (typeof origin !== "string" || !URL.canParse(origin) || new URL(origin).origin !== origin) throw refused("cors", origin, accepted);
}

function refused(name: string, value: unknown, accepted: string): LongcatError {
  return new LongcatError("OPTION_INVALID", `${name}: ${JSON.stringify(value)} is not accepted; give ${accepted}`);
}
