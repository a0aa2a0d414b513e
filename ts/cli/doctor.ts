/**
 * `longcat doctor`: what this machine has, what is missing and how to mend it. Works without the addon.
 * @module
 */

import { type Diagnosis, diagnose } from "../index.js";
import { type Command, JSON_FLAG } from "./command.js";
import { alignColumns, print, printJson } from "./output.js";

export const doctorCommand: Command = {
  usage: ["doctor [--json]"],
  about:
    "Says what was found on this machine and what is missing. Exit code 1 if the addon cannot be loaded or the bundled model cannot be read.",
  flags: [JSON_FLAG],
  maxPositionals: 0,
  run: async (flags) => {
    const diagnosis = await diagnose();
    if (flags.on("json")) await printJson(diagnosis);
    else await print(`${describe(diagnosis)}\n`);
    return diagnosis.ok ? 0 : 1;
  },
};

/** One line a finding; what more a finding has to say stands below. */
function describe({ version, platform, findings }: Diagnosis): string {
  const word = (ok: boolean | null) => (ok === null ? "-" : ok ? "ok" : "MISSING");
  const rows = findings.map(({ name, ok, detail }) => [word(ok), name, detail.split("\n")[0] ?? ""]);
  const more = findings.flatMap(({ detail }) => detail.split("\n").slice(1));
  return [`longcat-node ${version} on ${platform}`, "", alignColumns(rows), ...(more.length > 0 ? ["", ...more] : [])].join("\n");
}
