/** `longcat inspect routing`: its table, its JSON, and its page, which is looked at in a browser where there is one. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import type { RoutingAnalysis } from "../../ts/index.js";
import { modelPath, temporaryFolder } from "../helpers/fixtures.js";
import { CHROMIUM, startBrowser } from "../page/browser.js";
import { longcat, MINI } from "./longcat.js";

const routing = (...args: string[]) => longcat(["inspect", "routing", "--device", "cpu", ...args]);
const parsed = async (...args: string[]) => JSON.parse((await routing("--json", ...args)).stdout) as RoutingAnalysis;

/** Texts that would be markup if nobody took care. */
const MARKUP = `<script>alert(1)</script> & "'`;

const folder = temporaryFolder();
const file = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};

describe("inspect routing", () => {
  it("prints a line a data set, and one a layer of each", async () => {
    const { code, stdout, stderr } = await routing(MINI, "Once upon a time", "12 + 30 = 42");
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/2 layers, each with 24 FFN experts and 12 zero experts, of which a token chooses 6; even use of all is 4\.00/);
    expect(stdout).toMatch(/^text 1 +1 +1 +\d+ +\d\.\d{3} +\d\.\d{3} +\d+\.\d %$/m);
    for (const start of ["text 1 +0", "text 1 +1", "text 2 +0", "text 2 +1"])
      expect(stdout).toMatch(
        new RegExp(String.raw`^${start} +\d\.\d{3} +\d\.\d{3} +\d+\.\d % +\d\.\d\d +\d\.\d\d +\d\.\d\d +\d+ \(\d+\.\d\d\), `, "m"),
      );
  });

  it("reads files: text, JSONL of texts, chats and ids, JSON; files of one name belong together", async () => {
    const story = file("story.txt", "Once upon a time\nthere was a cat.\n");
    const chat = JSON.stringify({ id: 7, messages: [{ role: "user", content: "Compute 56 + 80." }] });
    const mixed = file("mixed.jsonl", `${chat}\n\n{"text": "a"}\r\n{"tokens": [12, 13]}\n[14]\n`);
    const one = file("one.json", '{\n"text": "Once"\n}');
    const { data } = await parsed("--file", story, "--data", `mix=${mixed}`, "--data", `mix=${one}`, "--tokens", "5,6,7");
    expect(data.map(({ name, texts }) => [name, texts])).toEqual([
      ["tokens", 1],
      [story, 1],
      ["mix", 5],
    ]);
    // The chat's 16 tokens (test/helpers/questions.ts), one of "a", two, one, one of "Once".
    expect(data[0]!.tokens).toBe(3);
    expect(data[2]!.tokens).toBe(16 + 1 + 2 + 1 + 1);
  });

  it("- is standard input", async () => {
    const { stdout } = await longcat(["inspect", "routing", MINI, "-", "--device", "cpu", "--json", "--keep-tokens", "9"], {
      input: "12 + 30",
    });
    const { data } = JSON.parse(stdout) as RoutingAnalysis;
    expect(data[0]!.kept[0]!.map(({ text }) => text).join("")).toBe("12 + 30");
  });

  it("takes one text as data called text, whatever it begins with; texts of files alone without a folder are the bundled checkpoint's", async () => {
    const { directory, data } = await parsed(MINI, "--", "-5 degrees");
    expect([directory, data.map(({ name }) => name)]).toEqual([MINI, ["text"]]);
    const bundled = await parsed("--tokens", "1,5,9");
    expect([bundled.directory, bundled.data[0]!.tokens]).toEqual([MINI, 3]);
  });

  it("--json is one document, without tokens unless they are asked for", async () => {
    const { directory, data } = await parsed(modelPath("tiny-lite-a"), "--tokens", "1,5,9");
    expect([directory, data[0]!.kept, data[0]!.layers.length]).toEqual([modelPath("tiny-lite-a"), [], 2]);
  });

  it("--svg draws a line a data set", async () => {
    const svg = join(folder, "routing.svg");
    expect((await routing(MINI, "a", "b", "--svg", svg)).code).toBe(0);
    expect(readFileSync(svg, "utf8")).toMatch(/^<svg [\s\S]*>text 1<[\s\S]*>text 2</);
  });

  it.each([
    [[], 2, /^usage error: inspect routing DIR TEXT… needs a text, --tokens, --file or --data$/m],
    [[MINI], 2, /^usage error: inspect routing DIR TEXT… needs a text, --tokens, --file or --data$/m],
    [["Once"], 2, /^usage error: inspect routing DIR TEXT…: the checkpoint's folder comes first, and "Once" is no folder$/m],
    [["Once", MINI], 2, /DIR TEXT…: the checkpoint's folder comes first, and "Once" is no folder$/m],
    [["Once", "--data", "a=a.txt"], 2, /the checkpoint's folder comes first, and "Once" is no folder$/m],
    [[join(MINI, "config.json"), "a"], 2, /the checkpoint's folder comes first, and ".*config\.json" is no folder$/m],
    [[folder, "a"], 1, /^error: CHECKPOINT_INVALID: .*config\.json/m],
    [["--model", MINI, "a"], 2, /unknown flag "--model"/],
    [["--data", "file.txt"], 2, /^usage error: --data: "file\.txt" is not NAME=FILE$/m],
    [[MINI, "a", "--ranks", "2"], 2, /unknown flag "--ranks"/],
    [["--file", "/nowhere.txt"], 1, /^error: PROMPT_INVALID: \/nowhere\.txt: ENOENT/m],
    [["--file", file("bad.jsonl", '{"text": "a"}\n{"text"\n')], 1, /^error: PROMPT_INVALID: .*bad\.jsonl:2: not JSON/m],
    [["--file", file("odd.jsonl", '{"content": "a"}')], 1, /odd\.jsonl:1: give one of "text" \(a string\), "messages" and "tokens"/],
    [["--file", file("both.jsonl", '{"text": "a", "tokens": [1]}')], 1, /both\.jsonl:1: give one of/],
    [["--file", file("empty.jsonl", "\n")], 1, /there is no text in it/],
    [[MINI, "a", "--html", join(folder, "none", "page.html")], 1, /^error: OPTION_INVALID: --html .*page\.html: ENOENT/m],
    [[MINI, "a", "--keep-tokens", "-1"], 1, /^error: OPTION_INVALID: keepTokens: -1 .*\(--keep-tokens\)$/m],
  ] satisfies [string[], number, RegExp][])("longcat inspect routing %j is refused", async (args, wanted, message) => {
    const { code, stdout, stderr } = await routing(...args);
    expect([code, stdout]).toEqual([wanted, ""]);
    expect(stderr).toMatch(message);
  });
});

it("inspect routing: a text in the folder's place may be longer than any path", async () => {
  const { code, stderr } = await routing("long ".repeat(1000), MINI);
  expect([code, stderr]).toEqual([2, expect.stringMatching(/the checkpoint's folder comes first, and "(long ){1000}" is no folder$/m)]);
});

describe("the page", () => {
  const html = join(folder, "page.html");
  const write = async (...args: string[]) => {
    const { code, stderr } = await routing(...args, "--html", html);
    expect([code, stderr]).toEqual([0, ""]);
    return readFileSync(html, "utf8");
  };

  it("holds texts and names as text, and asks nothing of anybody", async () => {
    const page = await write(MINI, MARKUP, "--data", `<i>"=${file("a.txt", "\u0007\u202e\n")}`);
    expect(page).not.toContain("<script>alert");
    expect(page).not.toContain("<i>");
    expect(page).toContain("&lt;i&gt;&quot;");
    expect(page).toContain("\\u0007");
    expect(page).toContain("\\u202e");
    expect(page).toContain("↵\n");
    expect(page).not.toMatch(/\bsrc=|\bhref=|https?:|[\u0007\u202e]/);
  });

  it("shows the bytes of tokens that end no character, special tokens apart, and ids where there is no text", async () => {
    const page = await write(MINI, "你", "--tokens", "2");
    expect(page).toMatch(/<span class="t raw"[^>]*>E4<\/span>.*<span class="t"[^>]*>你<\/span>/);
    expect(page).toMatch(/<span class="t special" data-id="2"[^>]*>[^<]+<\/span>/);
    expect(await write(modelPath("tiny-a"), "--tokens", "1,5")).toMatch(/<span class="t raw" data-id="5"[^>]*>#5<\/span>/);
  });

  it("says how many tokens it shows", async () => {
    expect(await write(MINI, "Once upon a time", "--keep-tokens", "2")).toMatch(/the first 2 of \d+ tokens/);
  });

  it.skipIf(CHROMIUM === undefined)("colours tokens from the disk, by layer on demand", async () => {
    await write(MINI, MARKUP, "Once upon a time there was a cat.");
    const browser = await startBrowser();
    try {
      const page = await browser.newPage();
      const complaints: string[] = [];
      page.on("console", (line) => complaints.push(line.text()));
      page.on("pageerror", (error) => complaints.push(error.message));
      page.on("dialog", (dialog) => {
        complaints.push(dialog.message());
        void dialog.dismiss();
      });
      await page.goto(pathToFileURL(html).href);
      const colours = () => page.evaluate<string[]>('[...document.querySelectorAll(".t")].map((t) => t.style.backgroundColor)');
      const mean = await colours();
      expect(new Set(mean).size).toBeGreaterThan(2);
      await page.selectOption("#layer", "1");
      const second = await colours();
      expect(second).not.toEqual(mean);
      // The colour of a layer is its count, from the least to the most of the page.
      const ffn = await page.evaluate<number[]>('[...document.querySelectorAll(".t")].map((t) => Number(t.dataset.ffn.split(",")[1]))');
      const [least, most] = [Math.min(...ffn), Math.max(...ffn)];
      expect(await page.textContent("#most")).toBe(most.toFixed(2));
      const alphas = second.map((colour) => Number(/([\d.]+)\)$/.exec(colour)![1]));
      for (const [i, count] of ffn.entries()) expect(alphas[i]).toBeCloseTo((0.85 * (count - least)) / (most - least), 2);
      expect(await page.textContent(".text")).toBe(MARKUP);
      expect(complaints).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});
