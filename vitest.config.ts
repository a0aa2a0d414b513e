/** How `npm test` runs the TypeScript tests: `node scripts/run.mjs test` builds everything first. */
import { configDefaults, defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Compiled, and run by scripts/test-gpu.mjs where there is a GPU.
    exclude: [...configDefaults.exclude, "test/gpu/**"],
    // The addon keeps threads of its own: few processes, and each test file in a fresh one.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
