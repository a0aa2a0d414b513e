/** `longcat chat` over a pipe: one line is one message; standard output carries replies alone. */
import { spawn } from "node:child_process";
import { readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../helpers/fixtures.js";
import { longcat, MAIN, MINI } from "./longcat.js";

describe("chat", () => {
  it("answers each line, keeps the conversation, ends at the end of input", async () => {
    const { code, stdout, stderr } = await longcat(["chat", "--temperature", "0"], { input: "Compute 56 + 80.\n\nCompute 80 - 38.\n" });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toBe("136\n42\n");
  });

  it("knows /reset, /think, /exit; an unknown command is named and nothing is sent", async () => {
    const { code, stdout, stderr } = await longcat(["chat", "--temperature", "0"], {
      input: "/dance\n/reset\n/think\nWhat is 879 + 904?\n/exit\nCompute 1 + 1.\n",
    });
    expect([code, stdout]).toEqual([0, "1783\n"]);
    expect(stderr).toContain("unknown command /dance");
    expect(stderr).toContain("reasoning on");
  });

  it("a turn that fails is reported and left out; the conversation goes on, and the exit code tells", async () => {
    const long = `${"a b ".repeat(3000)}What is the word?`;
    const { code, stdout, stderr } = await longcat(["chat", "--temperature", "0"], { input: `${long}\nCompute 56 + 80.\n` });
    expect([code, stdout]).toEqual([1, "136\n"]);
    expect(stderr).toMatch(/^error: CONTEXT_OVERFLOW: /);
  });

  it("an impossible parameter is refused before the first message", async () => {
    const { code, stderr } = await longcat(["chat", "--max-tokens", "-1"]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: OPTION_INVALID: maxTokens: -1 /)]);
  });

  it("a checkpoint without a tokenizer is refused before the first message", async () => {
    const folder = temporaryFolder();
    for (const name of readdirSync(MINI)) if (!name.startsWith("tokenizer")) symlinkSync(join(MINI, name), join(folder, name));
    const { code, stderr } = await longcat(["chat", "--model", folder]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/error: PROMPT_INVALID: .*no (chat template|tokenizer)/)]);
  });

  it("Ctrl-C stops the reply, not the program", async () => {
    const child = spawn(process.execPath, [MAIN, "chat", "--ignore-eos", "--seed", "1", "--max-tokens", "4000"], { stdio: "pipe" });
    let stdout = "";
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject).on("close", resolve);
      let interrupted = false;
      child.stdout.setEncoding("utf8").on("data", (piece: string) => {
        stdout += piece;
        if (interrupted) return;
        interrupted = true;
        child.kill("SIGINT");
        // The program must still be there to read this.
        child.stdin.end("/exit\n");
      });
      child.stdin.write("Please write a short story.\n");
    });
    expect(code).toBe(0);
    expect(stdout.length).toBeGreaterThan(0);
  });
});
