/** NCCL is looked for when it is wanted: what is said where it is not there, or is something else. */

import { afterEach, describe, expect, it, vi } from "vitest";
import { addonPath, openDevice } from "./devices.js";

describe("NCCL", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  const refused = (...words: string[]) => ({
    code: "DEVICE_UNAVAILABLE",
    message: expect.stringMatching(new RegExp(words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*"), "s")),
  });
  const failure = () => {
    try {
      return openDevice({ threads: 1 }).ncclUniqueId();
    } catch (error) {
      return error;
    }
  };

  it("that is nowhere: every name that was tried, and why not, and what to do", () => {
    const said = failure();
    if (said instanceof Uint8Array) return expect(said).toHaveLength(128); // it is there
    expect(said).toMatchObject(refused("libnccl.so.2 (", "libnccl.so (", "install NCCL 2.18 or newer", "LONGCAT_NCCL"));
  });

  it("that is not where LONGCAT_NCCL says: no other place is tried", () => {
    vi.stubEnv("LONGCAT_NCCL", "/nowhere/libnccl.so.2");
    expect(failure()).toMatchObject(refused("LONGCAT_NCCL says", "/nowhere/libnccl.so.2", "No such file"));
  });

  it("that is another library", () => {
    vi.stubEnv("LONGCAT_NCCL", addonPath());
    expect(failure()).toMatchObject(refused(`${addonPath()} is no NCCL`, "ncclGetVersion"));
  });

  it("joins GPUs alone", async () => {
    await expect(openDevice({ threads: 1 }).joinNccl({ rank: 0, ranks: 2, id: new Uint8Array(128) })).rejects.toMatchObject(
      refused("NCCL joins GPUs"),
    );
  });
});
