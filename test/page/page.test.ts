/** The chat page in headless Chromium. */
import type { Browser, Locator, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CHROMIUM, startBrowser } from "./browser.js";
import { type ChatServer, STORY, startChatServer, TOP_K } from "./chat-server.js";

let browser: Browser;
let server: ChatServer;
let page: Page;
/** What the page said to the console and asked of other hosts: nothing. */
let complaints: string[];

const WIDE = { width: 1100, height: 800 };
const PHONE = { width: 360, height: 740 };

async function open(viewport = WIDE): Promise<Page> {
  const context = await browser.newContext({ viewport });
  page = await context.newPage();
  page.setDefaultTimeout(10_000);
  complaints = [];
  // A refused request is told on the console by the browser itself.
  page.on("console", (line) => line.type() === "error" && !/status of 4/.test(line.text()) && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => request.url().startsWith(`${server.url}/`) || complaints.push(`asked ${request.url()}`));
  await page.goto(server.url);
  return page;
}

const ask = async (text: string) => {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
};
const ended = () => page.waitForSelector("#stop", { state: "hidden" });
const answer = (): Locator => page.locator(".assistant").last();
const tokens = (): Locator => answer().locator(".token");
const LAST = '[...[...document.querySelectorAll(".assistant")].at(-1).querySelectorAll(".token")]';
const colours = () => page.evaluate<string[]>(`${LAST}.map((token) => getComputedStyle(token).backgroundColor)`);

/** In the page: how far each token's text stands out from its colour, as WCAG 2 counts. */
const CONTRASTS = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return ${LAST}.filter((token) => !token.matches(".unseen-text")).map((token) => {
    const { color, backgroundColor } = getComputedStyle(token);
    const [dark, bright] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  });
})()`;

const TEXT = STORY.map(({ content = "" }) => content).join("");

describe.skipIf(CHROMIUM === undefined)("the page at /", () => {
  beforeAll(async () => {
    [browser, server] = await Promise.all([startBrowser(), startChatServer()]);
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });
  beforeEach(async () => {
    await page?.context().close();
    Object.assign(server, { frames: STORY, delayMs: 5, key: undefined, refuse: undefined, asked: [], gone: 0, paths: [] });
    await open();
  });

  it("sends a message and shows the answer as it streams in", async () => {
    server.delayMs = 40;
    await ask("Tell a story.");
    await tokens().nth(2).waitFor();
    expect(await page.locator("#stop").isVisible()).toBe(true);
    expect((await answer().locator(".text").last().textContent())!.length).toBeLessThan(TEXT.length);
    await ended();
    expect(await answer().locator(".text").last().textContent()).toBe(`${TEXT}·`);
    expect(server.asked).toEqual([{ model: "mini", messages: [{ role: "user", content: "Tell a story." }], routing: true, stream: true }]);
    expect(complaints).toEqual([]);
  });

  it("colours each token by its FFN experts and counts zero experts", async () => {
    await ask("Tell a story.");
    await ended();
    const seen = await colours();
    expect(seen).toHaveLength(STORY.length);
    const means = STORY.map(({ counts }) => counts![0]!.reduce((sum, count) => sum + count, 0) / 2);
    for (const [i, mean] of means.entries())
      for (const [j, other] of means.entries()) expect(seen[i] === seen[j], `tokens ${i} and ${j}`).toBe(mean === other);
    const zero = 1 - means.reduce((sum, mean) => sum + mean, 0) / means.length / TOP_K;
    expect(await page.textContent("#zero-share")).toBe(`${Math.round(100 * zero)}%`);
    expect(await page.textContent("#token-count")).toBe(String(STORY.length));
    expect([await page.textContent("#scale-low"), await page.textContent("#scale-high")]).toEqual(["0.0", "5.0"]);
  });

  it("shows a token's layers when it is pointed at, and hides them again", async () => {
    await ask("Tell a story.");
    await ended();
    await tokens().nth(5).hover();
    const card = page.locator("#detail");
    expect(await card.isVisible()).toBe(true);
    expect(await card.textContent()).toMatch(/word5.*3\.0 of 6 FFN experts/);
    expect(await card.locator(".layers span:not(.bar)").allTextContents()).toEqual(["layer 0", "5 of 6", "layer 1", "1 of 6"]);
    await page.hover("h1");
    expect(await card.isVisible()).toBe(false);
  });

  it("is used by keyboard alone: tokens by arrow keys, stop by Escape", async () => {
    await page.keyboard.type("Tell a story.");
    await page.keyboard.press("Enter");
    await ended();
    const focused = () => page.evaluate<string>("document.activeElement.textContent");
    await tokens().first().focus();
    await page.keyboard.press("ArrowRight");
    expect(await focused()).toBe(" word1");
    expect(await page.textContent("#detail")).toContain("layer 0");
    await page.keyboard.press("End");
    expect(await focused()).toBe("·");
    await page.keyboard.press("Escape");
    expect(await page.locator("#detail").isVisible()).toBe(false);
    // One stop for Tab in all of an answer's tokens.
    expect(await page.locator('.token[tabindex="0"]').count()).toBe(1);

    server.delayMs = 100;
    await page.focus("#prompt");
    await page.keyboard.type("Another.");
    await page.keyboard.press("Enter");
    await tokens().nth(1).waitFor();
    await page.keyboard.press("Escape");
    await ended();
    expect(await answer().textContent()).toContain("Stopped.");
  });

  it("stop ends the answer here and at the server; what came stays", async () => {
    server.delayMs = 50;
    await ask("Tell a story.");
    await tokens().nth(2).waitFor();
    await page.click("#stop");
    await ended();
    await expect.poll(() => server.gone).toBe(1);
    const text = await answer().locator(".text").last().textContent();
    expect(text).toMatch(/^word0 word1 word2/);
    expect(await answer().locator(".foot").textContent()).toContain("Stopped.");
    await ask("Go on.");
    await ended();
    expect(server.asked[1]!["messages"]).toEqual([
      { role: "user", content: "Tell a story." },
      { role: "assistant", content: text },
      { role: "user", content: "Go on." },
    ]);
  });

  it("a reload keeps the conversation, its colours and figures", async () => {
    await ask("Tell a story.");
    await ended();
    const [before, share] = [await colours(), await page.textContent("#zero-share")];
    await page.reload();
    expect(await page.locator(".user .text").last().textContent()).toBe("Tell a story.");
    expect(await answer().locator(".text").last().textContent()).toBe(`${TEXT}·`);
    expect([await colours(), await page.textContent("#zero-share")]).toEqual([before, share]);
    await ask("Go on.");
    await ended();
    expect(server.asked[1]!["messages"]).toHaveLength(3);
    await page.click("#clear");
    expect(await page.locator("#log li").count()).toBe(0);
    await page.reload();
    expect(await page.locator("#log li").count()).toBe(0);
  });

  it("a reload in the middle of an answer keeps what had come", async () => {
    server.delayMs = 50;
    await ask("Tell a story.");
    await tokens().nth(3).waitFor();
    await page.reload();
    expect(await answer().locator(".text").last().textContent()).toMatch(/^word0 word1 word2/);
    expect(await answer().locator(".foot").textContent()).toContain("Stopped.");
    await expect.poll(() => server.gone).toBe(1);
  });

  it("retry asks the same again in place of the last answer", async () => {
    await ask("Tell a story.");
    await ended();
    server.frames = [{ content: "Short.", counts: [[1, 1]] }];
    await page.click(".retry");
    await ended();
    expect(await page.locator("#log li").count()).toBe(2);
    expect(await answer().locator(".text").last().textContent()).toBe("Short.");
    expect(server.asked[1]).toEqual(server.asked[0]);
    expect(await page.textContent("#token-count")).toBe("1");
  });

  it("an error is shown in the server's words, and retry goes on", async () => {
    server.refuse = "the prompt is too long: 5000 of 4096";
    await ask("Tell a story.");
    await ended();
    expect(await answer().locator(".fault").textContent()).toBe("the prompt is too long: 5000 of 4096");
    await page.click(".retry");
    await ended();
    expect(await tokens().count()).toBe(STORY.length);
    expect(server.asked[1]!["messages"]).toEqual([{ role: "user", content: "Tell a story." }]);
  });

  it("asks for a key where the server wants one, and keeps it for this tab alone", async () => {
    server.key = "secret";
    await page.reload();
    await page.waitForSelector("#key-form");
    await page.keyboard.type("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("does not know this key").waitFor();
    await page.fill("#key", "secret");
    await page.press("#key", "Enter");
    await page.waitForSelector("#key-form", { state: "hidden" });
    await ask("Tell a story.");
    await ended();
    expect(await tokens().count()).toBe(STORY.length);
    await page.reload();
    await expect.poll(() => page.textContent("#model")).toBe("mini");
    expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain("secret");
  });

  it("shows thoughts apart, and sends what the settings say", async () => {
    server.frames = [
      { reasoning: "Hmm", counts: [[6, 6]] },
      { reasoning: ".", counts: [[2, 2]] },
      { content: "136", counts: [[1, 0]] },
    ];
    await page.click("#settings summary");
    await page.check("#thinking");
    await page.fill("#temperature", "0");
    await page.fill("#max-tokens", "50");
    await page.press("#max-tokens", "Tab");
    await ask("Compute 56 + 80.");
    await ended();
    expect(server.asked[0]).toMatchObject({ enable_thinking: true, temperature: 0, max_tokens: 50 });
    expect(await answer().locator(".reasoning .text").textContent()).toBe("Hmm.");
    expect(await answer().locator(":scope > .text").textContent()).toBe("136");
    await page.reload();
    expect(await page.isChecked("#thinking")).toBe(true);
  });

  it("text from the model or the user is text, never markup", async () => {
    const markup = '<img src="x" onerror="alert(1)"><script>alert(2)</script>';
    server.frames = [{ content: markup, counts: [[1, 1]] }];
    await ask(markup);
    await ended();
    await page.reload();
    expect(await page.locator("#log img, #log script").count()).toBe(0);
    expect(await answer().locator(".text").last().textContent()).toBe(markup);
    expect(complaints).toEqual([]);
  });

  it("characters that several tokens make are one piece with all their tokens", async () => {
    server.frames = [{ counts: [[1, 1]] }, { content: "猫", counts: [[3, 3]] }, { content: " cat", counts: [[2, 2]] }];
    await ask("Which animal?");
    await ended();
    expect(await tokens().count()).toBe(2);
    await tokens().first().hover();
    expect(await page.textContent("#detail")).toMatch(/2 tokens/);
    expect(await page.textContent("#token-count")).toBe("3");
  });

  it("fits a phone: nothing is wider than the window, every control can be tapped", async () => {
    await page.context().close();
    await open(PHONE);
    server.frames = [{ content: "W".repeat(300), counts: [[1, 1]] }, ...STORY];
    await ask("Tell a story. ".repeat(20));
    await ended();
    await page.click("#settings summary");
    const width = await page.evaluate<number>("document.documentElement.scrollWidth");
    expect(width).toBeLessThanOrEqual(PHONE.width);
    for (const control of ["#send", "#clear", ".retry", "#prompt"]) {
      const box = (await page.locator(control).boundingBox())!;
      expect(box.x, control).toBeGreaterThanOrEqual(0);
      expect(box.x + box.width, control).toBeLessThanOrEqual(PHONE.width);
      expect(box.height, control).toBeGreaterThanOrEqual(30);
    }
    await tokens().last().hover();
    const card = (await page.locator("#detail").boundingBox())!;
    expect(card.x).toBeGreaterThanOrEqual(0);
    expect(card.x + card.width).toBeLessThanOrEqual(PHONE.width);
  });

  it("dark and light: text stands out from every token's colour", async () => {
    await ask("Tell a story.");
    await ended();
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      const contrasts = await page.evaluate<number[]>(CONTRASTS);
      expect(contrasts.length).toBe(STORY.length - 1);
      // WCAG 2, level AA, for text of ordinary size.
      expect(Math.min(...contrasts), colorScheme).toBeGreaterThan(4.5);
    }
  });
});
