/** Processes as the system sees them. */
import { readdirSync, readFileSync } from "node:fs";

/** Processes that `pid` has started and that are still there; those that have ended and were not noticed yet are not. */
export function childrenOf(pid: number): number[] {
  return readdirSync("/proc").flatMap((name) => {
    try {
      const stat = /^\d+$/.test(name) ? readFileSync(`/proc/${name}/stat`, "utf8") : "";
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(parent) === pid && state !== "Z" ? [Number(name)] : [];
    } catch {
      return []; // it has ended meanwhile
    }
  });
}

/** Resolves when none of these processes is there any more. */
export async function gone(pids: readonly number[], timeoutMs = 5000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = pids.filter(isThere);
    if (left.length === 0) return;
    if (performance.now() > deadline) throw new Error(`processes ${left.join(", ")} are still there`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function isThere(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat[stat.lastIndexOf(")") + 2] !== "Z";
  } catch {
    return false;
  }
}
