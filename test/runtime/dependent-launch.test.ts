// Kernels are launched so that one may begin while the one before it ends (native/cuda/dependent.cuh): each must wait itself.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const NATIVE = join(import.meta.dirname, "../../native");

/** Kernels in a file: name and body, up to the brace that ends it at the beginning of a line. */
function kernels(text: string): { name: string; body: string }[] {
  return [...text.matchAll(/__global__[^;{]*?(\w+)\([^;{]*?\)\s*\{([\s\S]*?)\n\}/g)].map(([, name, body]) => ({
    name: name as string,
    body: body as string,
  }));
}

const files = readdirSync(NATIVE, { recursive: true, encoding: "utf8" }).filter((file) => /\.cuh?$/.test(file));

describe("kernels", () => {
  it.each(files.map((file) => [file]))("of %s wait for the launch before them", (file) => {
    const text = readFileSync(join(NATIVE, file), "utf8");
    const found = kernels(text);
    expect(found.length, "kernels that this test can read").toBe(text.match(/^(?:template.*\n)?__global__/gm)?.length ?? 0);
    for (const { name, body } of found) expect(body, name).toMatch(/\bawait(Previous|ThenLetNextBegin)\(\);/);
  });

  // Their successors read, before they wait, what kernels before them wrote: the plan of a grouped product, lengths, tables and the cache.
  it.each(files.filter((file) => /^(cuda\/(hopper\/)?gemm|ops\/mla_decode\/)/.test(file)).map((file) => [file]))(
    "of %s let the next one begin only after they have waited",
    (file) => {
      for (const { name, body } of kernels(readFileSync(join(NATIVE, file), "utf8"))) expect(body, name).not.toMatch(/\bletNextBegin\(\)/);
    },
  );

  it("are launched by one function", () => {
    for (const file of files) {
      const launches = readFileSync(join(NATIVE, file), "utf8").match(/cudaLaunchKernel|<<<(?!grid)/g) ?? [];
      expect(launches.length, file).toBe(file === "cuda/launch.cuh" ? 1 : 0);
    }
  });
});
