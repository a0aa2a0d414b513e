/**
 * Settings of a provider: what there is, and its checks when the provider is made.
 * @module
 */

import { basename } from "node:path";
import { LongcatError } from "../index.js";
import type { LongcatEngine } from "./model.js";
import { type LongcatProviderOptions, OPTION_NAMES } from "./parameters.js";

/** Settings of {@link createLongcat}. `undefined` and `null` mean absent. */
export interface LongcatProviderSettings {
  /** What the model is called. Default: the name of the checkpoint's folder. */
  modelId?: string | null;
  /** Options that hold where a call's `providerOptions.longcat` does not say otherwise. Their values are checked by each call. */
  defaults?: LongcatProviderOptions | null;
}

interface ResolvedSettings {
  modelId: string;
  defaults: LongcatProviderOptions;
}

/** Checks what a provider is made of, and fills in what is absent. */
export function resolveSettings(engine: LongcatEngine | null | undefined, settings: unknown): ResolvedSettings {
  const directory = engine?.info?.directory;
  if (typeof directory !== "string") throw refused("engine: not an engine; give one that Engine.load has made");
  const { modelId, defaults } = members(settings, "settings", ["modelId", "defaults"]);
  if (modelId !== undefined && (typeof modelId !== "string" || modelId === "")) throw refused("modelId: not a name; give a string");
  return { modelId: modelId ?? basename(directory), defaults: members(defaults, "defaults", OPTION_NAMES) };
}

/** The members of an object that are not absent; throws for a name that is not known. */
function members(value: unknown, field: string, known: readonly string[]): Record<string, unknown> {
  if (typeof (value ?? {}) !== "object" || Array.isArray(value)) throw refused(`${field}: not an object`);
  const all = Object.entries(value ?? {});
  const unknown = all.find(([name]) => !known.includes(name));
  if (unknown !== undefined) throw refused(`${field}.${unknown[0]}: not known; known are ${known.join(", ")}`);
  return Object.fromEntries(all.filter(([, member]) => member !== undefined && member !== null));
}

function refused(message: string): LongcatError {
  return new LongcatError("OPTION_INVALID", message);
}
