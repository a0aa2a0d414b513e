/** A Chromium that is on this machine, or what to say where there is none. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const PLACES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"].flatMap((name) =>
  ["/usr/bin", "/usr/local/bin", "/snap/bin"].map((folder) => `${folder}/${name}`),
);

/** The browser's path; undefined where it is not installed. */
export const CHROMIUM = PLACES.find((path) => existsSync(path));

if (CHROMIUM === undefined) console.warn("The page is not tested: no Chromium in /usr/bin (Debian, Ubuntu: apt-get install -y chromium).");

/** Starts it without a window. Its own sandbox needs more rights than a container has. */
export const startBrowser = (): Promise<Browser> =>
  chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
