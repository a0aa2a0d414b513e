/** The chat page as `longcat serve` serves it: the real server, the bundled model, a browser. */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiServer, pageFiles } from "../../ts/server/index.js";
import { engines } from "../helpers/mini.js";
import { CHROMIUM, startBrowser } from "./browser.js";

const { open, closeAll } = engines();
const KEY = "open-sesame";

describe.skipIf(CHROMIUM === undefined)("the page over the real server", () => {
  let browser: Browser;
  let server: ApiServer;
  beforeAll(async () => {
    [browser, server] = await Promise.all([startBrowser(), ApiServer.listen({ port: 0, apiKey: KEY }, pageFiles())]);
    server.serve(await open());
  });
  afterAll(async () => {
    await browser?.close();
    await server?.drain();
    await closeAll();
  });

  it("asks for the key, then a sum: the answer streams in, coloured by its experts, and outlives a reload", async () => {
    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    const complaints: string[] = [];
    page.on("console", (line) => line.type() === "error" && !/status of 401/.test(line.text()) && complaints.push(line.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(server.url);
    await page.fill("#key", KEY);
    await page.press("#key", "Enter");
    await expect.poll(() => page.textContent("#model")).toBe(server.model);

    await page.click("#settings summary");
    await page.fill("#temperature", "0");
    await page.press("#temperature", "Tab");
    await page.fill("#prompt", "Compute 56 + 80.");
    await page.press("#prompt", "Enter");
    await page.waitForSelector("#stop", { state: "hidden" });
    const words = page.locator(".assistant > .text .token");
    // Three digits and the end token, which has no text.
    expect(await words.allTextContents()).toEqual(["1", "3", "6", "·"]);
    const colours = await page.evaluate<string[]>(
      '[...document.querySelectorAll(".token")].map((token) => getComputedStyle(token).backgroundColor)',
    );
    expect(new Set(colours).size).toBeGreaterThan(1);
    expect(await page.textContent("#zero-share")).toMatch(/^[1-9]\d?%$/);
    await words.first().focus();
    expect(await page.locator("#detail .layers span:not(.bar)").allTextContents()).toEqual([
      "layer 0",
      expect.stringMatching(/^[0-6] of 6$/),
      "layer 1",
      expect.stringMatching(/^[0-6] of 6$/),
    ]);

    await page.reload();
    expect(await words.allTextContents()).toEqual(["1", "3", "6", "·"]);
    expect(complaints).toEqual([]);
  });
});
