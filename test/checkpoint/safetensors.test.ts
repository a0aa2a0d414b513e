/** The native reader of safetensors files against files that lie. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { LongcatError } from "../../ts/errors.js";
import { loadAddon } from "../../ts/runtime/addon.js";
import { openSafetensors } from "../../ts/runtime/files.js";
import { type Json, modelPath, ROOT, safetensorsBytes, temporaryFolder } from "../helpers/fixtures.js";
import { onABusyMachine } from "../helpers/time.js";

const dir = temporaryFolder();
let count = 0;

function put(bytes: Uint8Array | string): string {
  const path = join(dir, `${count++}.safetensors`);
  writeFileSync(path, bytes);
  return path;
}

/** The error of opening `path`: always CHECKPOINT_INVALID, short, naming the file, within a second. */
function failure(path: string): string {
  const start = performance.now();
  try {
    openSafetensors(path).close();
  } catch (error) {
    expect(error).toBeInstanceOf(LongcatError);
    expect((error as LongcatError).code).toBe("CHECKPOINT_INVALID");
    const { message } = error as Error;
    expect(message.length).toBeLessThan(300);
    expect(message).toContain(path.split("/").at(-1));
    expect(performance.now() - start).toBeLessThan(onABusyMachine(1000));
    return message;
  }
  throw new Error("the file was accepted");
}

const original = readFileSync(join(modelPath("tiny-a"), "model.safetensors"));
const headerLength = Number(original.readBigUInt64LE(0));
const originalHeader = JSON.parse(original.toString("utf8", 8, 8 + headerLength)) as Record<string, Json>;
const originalData = original.subarray(8 + headerLength);
const first = "lm_head.weight";
const second = "model.embed_tokens.weight";

/** tiny-a's file with a changed header. */
function withHeader(change: (header: Record<string, Json>) => unknown, data: Uint8Array = originalData): string {
  const header = structuredClone(originalHeader);
  return put(safetensorsBytes(JSON.stringify(change(header) ?? header), data));
}

/** tiny-a's file with another length prefix. */
function withLength(length: bigint): string {
  const bytes = Buffer.from(original);
  bytes.writeBigUInt64LE(length);
  return put(bytes);
}

/** A file of one tensor "x" whose entry is this text. */
const oneEntry = (entry: string, bytes = 4) => put(safetensorsBytes(`{"x":${entry}}`, new Uint8Array(bytes)));

describe("a right file", () => {
  it("gives every entry in file order, in bytes of the file", () => {
    const file = openSafetensors(join(modelPath("tiny-a"), "model.safetensors"));
    expect(file.bytes).toBe(original.byteLength);
    expect(file.entries).toHaveLength(139);
    expect(file.entries[1]).toEqual({
      ...{ name: second, dtype: 0, storedDtype: "F32", shape: [320, 96] },
      ...{ begin: 8 + headerLength + 122880, end: 8 + headerLength + 245760 },
    });
    file.close();
    file.close();
  });
  it("may pad its header with spaces", () => {
    const file = openSafetensors(put(safetensorsBytes(`${JSON.stringify(originalHeader)}${" ".repeat(1000)}`, originalData)));
    expect(file.entries).toHaveLength(139);
  });
  it("may have a header of any length", () => {
    for (let pad = 0; pad < 8; pad++) {
      expect(
        openSafetensors(put(safetensorsBytes(`{"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}${" ".repeat(pad)}`, new Uint8Array(3))))
          .entries,
      ).toHaveLength(1);
    }
  });
  it("may hold tensors without elements, scalars, metadata, escapes and white space", () => {
    const header = ` { "__metadata__" : {"a":"\\u00e9"}, "\\ud83d\\ude00\\n/" : {"shape":[],"data_offsets":[0,4],"dtype":"F32"},\n"e":{"dtype":"F16","shape":[0,5],"data_offsets":[4,4]}, "é":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[4,5]}}`;
    const { entries } = openSafetensors(put(safetensorsBytes(header.trimStart(), new Uint8Array(5))));
    expect(entries.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["😀\n/", 0, []],
      ["e", -1, [0, 5]],
      ["é", -1, [1]],
    ]);
  });
  it("may be a link", () => {
    const path = join(dir, "link.safetensors");
    symlinkSync(join(modelPath("tiny-a"), "model.safetensors"), path);
    expect(openSafetensors(path).entries).toHaveLength(139);
  });
  it("may hold nothing", () => expect(openSafetensors(put(safetensorsBytes("{}"))).entries).toEqual([]));
});

describe("the length prefix", () => {
  it.each([0n, 2n, 2n ** 31n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 1n, BigInt(original.byteLength - 8), BigInt(original.byteLength - 7)])(
    "%s is refused",
    (length) => {
      failure(withLength(length));
    },
  );
  it("beyond the file says both sizes", () => {
    const path = put(original.subarray(0, 500));
    expect(failure(path)).toMatch(new RegExp(`${headerLength + 8} bytes.*500`));
  });
});

describe("data_offsets", () => {
  it.each<[string, unknown]>([
    ["backwards", [8, 4]],
    ["negative", [-4, 0]],
    ["of one number", [0]],
    ["of three", [0, 4, 8]],
    ["a string", "a"],
    ["fractions", [0.5, 4]],
    ["null", null],
    ["strings", ["0", "4"]],
    ["nested", [[0], 4]],
  ])("%s are refused, the tensor named", (_, offsets) =>
    expect(failure(withHeader((h) => void (h[first].data_offsets = offsets)))).toContain(first),
  );
  it("with an exponent, leading zeros, or beyond 2^53 are refused", () => {
    failure(oneEntry('{"dtype":"F32","shape":[1],"data_offsets":[0,4e0]}'));
    failure(oneEntry('{"dtype":"F32","shape":[1],"data_offsets":[00,4]}'));
    failure(oneEntry('{"dtype":"F32","shape":[1],"data_offsets":[-0,4]}'));
    failure(oneEntry('{"dtype":"F32","shape":[1],"data_offsets":[0,9007199254740993]}'));
    failure(oneEntry('{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551620]}'));
  });
  it("that share bytes are refused", () =>
    expect(failure(withHeader((h) => void (h[second].data_offsets = h[first].data_offsets)))).toContain(second));
  it("that overlap by a part are refused", () => {
    const entry = (a: number, b: number) => ({ dtype: "U8", shape: [b - a], data_offsets: [a, b] });
    expect(failure(put(safetensorsBytes(JSON.stringify({ a: entry(0, 6), b: entry(4, 10) }), new Uint8Array(10))))).toMatch(/"b".*within/);
  });
  it("that leave a hole are refused", () => expect(failure(withHeader((h) => void delete h[second]))).toMatch(/hole/));
  it("that end before the file does are refused", () =>
    expect(failure(put(Buffer.concat([original, Buffer.alloc(3)])))).toMatch(/3 bytes lie behind/));
  it("beyond the file's end say expected and actual bytes", () => {
    const path = put(original);
    truncateSync(path, original.byteLength / 2);
    expect(failure(path)).toMatch(new RegExp(`cut short.*${original.byteLength} bytes.*${original.byteLength / 2}`));
  });
  it("that do not fit shape and dtype are refused", () =>
    expect(failure(withHeader((h) => void (h[first].shape = [320, 95])))).toMatch(/122880 bytes.*121600/));
});

describe("shapes", () => {
  it.each<[string, unknown]>([
    ["that overflow", [2 ** 32, 2 ** 32]],
    ["of −1", [-1]],
    ["with a fraction", [320, 96.5]],
    ["of 2^53", [2 ** 53]],
    ["that are a number", 96],
    ["of strings", ["320", "96"]],
    ["with null", [320, null]],
  ])("%s are refused, the tensor named", (_, shape) => expect(failure(withHeader((h) => void (h[first].shape = shape)))).toContain(first));
  it("that overflow are refused with 0 bytes too", () =>
    expect(failure(oneEntry('{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}', 0))).toMatch(/overflow/));
  it("whose product wraps to the right size are refused", () =>
    expect(failure(oneEntry(`{"dtype":"F32","shape":[${2 ** 31},${2 ** 31},4,1],"data_offsets":[0,0]}`, 0))).toMatch(/overflow/));
  it("without elements cannot overflow", () =>
    expect(openSafetensors(oneEntry('{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}', 0)).entries).toHaveLength(1));
});

describe("dtypes", () => {
  it.each<[string, unknown]>([
    ["F4", "F4"],
    ["f32", "f32"],
    ["missing", undefined],
    ["empty", ""],
    ["a number", 32],
    ["null", null],
  ])("%s is refused, the tensor named", (_, dtype) => expect(failure(withHeader((h) => void (h[first].dtype = dtype)))).toContain(first));
});

describe("names", () => {
  it("twice are refused", () => {
    const text = JSON.stringify(originalHeader).replace(
      /^\{/,
      `{"${first}":{"dtype":"F32","shape":[320,96],"data_offsets":[122880,245760]},`,
    );
    expect(failure(put(safetensorsBytes(text, originalData)))).toMatch(new RegExp(`${first}.*twice`));
  });
  it("twice in different escapes are refused", () => {
    const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    expect(failure(put(safetensorsBytes(`{"a":${entry},"\\u0061":${entry}}`)))).toMatch(/twice/);
  });
  it("of 1 MB are read, and cut in messages", () => {
    const name = "n".repeat(2 ** 20);
    const entry = (offsets: number[]) => ({ [name]: { dtype: "U8", shape: [1], data_offsets: offsets } });
    expect(openSafetensors(put(safetensorsBytes(JSON.stringify(entry([0, 1])), new Uint8Array(1)))).entries[0]!.name).toBe(name);
    expect(failure(put(safetensorsBytes(JSON.stringify(entry([1, 0])), new Uint8Array(1))))).toContain("nnn…nnn");
  });
  it("with control characters do not reach the message as they are", () => {
    expect(failure(put(safetensorsBytes(`{"a\\u001b[31m\\n":{"dtype":"?","shape":[],"data_offsets":[0,1]}}`)))).toContain('"a?[31m?"');
  });
});

describe("the header's text", () => {
  it.each<[string, string | Uint8Array]>([
    ["an empty text", ""],
    ["a list", "[]"],
    ["null", "null"],
    ["a bare string", '"x"'],
    ["one brace", "{"],
    ["an open string", '{"x'],
    ["an open escape", '{"x\\'],
    ["a trailing comma", '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}'],
    ["no quotes", "{x:1}"],
    ["a byte order mark", "\ufeff{}"],
    ["something behind", "{}{}"],
    ["a NUL behind", "{}\0"],
    ["metadata as a list", '{"__metadata__":[]}'],
    ["metadata with a number", '{"__metadata__":{"a":1}}'],
    ["an entry as a list", '{"x":[]}'],
    ["an empty entry", '{"x":{}}'],
    ["an unknown key in an entry", '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"y":1}}'],
    ["a key twice in an entry", '{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'],
    ["half a surrogate pair", '{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'],
    ["surrogates the wrong way round", '{"\\udc00\\ud800":{}}'],
    ["a bad escape", '{"\\x":{}}'],
    ["a short escape", '{"\\u12":{}}'],
    ["a raw control character", '{"a\nb":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'],
    ["bytes that are not UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22])],
    ["an overlong form", Buffer.from('{"\xc0\x80":{}}', "latin1")],
    ["an encoded surrogate", Buffer.from('{"\xed\xa0\x80":{}}', "latin1")],
    ["a code point beyond Unicode", Buffer.from('{"\xf4\x90\x80\x80":{}}', "latin1")],
    ["a cut UTF-8 sequence", Buffer.from('{"\xe4\xb8', "latin1")],
    ["1,000,000 nested lists", "[".repeat(1_000_000)],
    ["1,000,000 nested lists as a shape", `{"x":{"shape":${"[".repeat(1_000_000)}`],
    ["1,000,000 nested objects", '{"a":'.repeat(1_000_000)],
    ["1,000,000 digits", `{"x":{"shape":[${"1".repeat(1_000_000)}`],
  ])("%s is refused", (_, header) => {
    failure(put(safetensorsBytes(header)));
  });
});

describe("what stands where a file should be", () => {
  it("nothing", () => expect(failure(join(dir, "absent.safetensors"))).toMatch(/not there/));
  it("a folder", () => {
    mkdirSync(join(dir, "folder.safetensors"));
    expect(failure(join(dir, "folder.safetensors"))).toMatch(/folder/);
  });
  it("a FIFO, without waiting", () => {
    execFileSync("mkfifo", [join(dir, "fifo.safetensors")]);
    expect(failure(join(dir, "fifo.safetensors"))).toMatch(/FIFO/);
  });
  it("a device", () => expect(failure("/dev/zero")).toMatch(/device/));
  it("a link in a circle", () => {
    symlinkSync("circle.safetensors", join(dir, "circle.safetensors"));
    failure(join(dir, "circle.safetensors"));
  });
  it("an empty file", () => expect(failure(put(""))).toMatch(/empty \(0 bytes\)/));
  it("some bytes", () => expect(failure(put("abc"))).toMatch(/3 bytes/));
  it("a Git LFS pointer", () =>
    expect(failure(put("version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 12213768\n"))).toMatch(
      /Git LFS pointer.*git lfs pull/,
    ));
  it("a web page", () => failure(put("<!DOCTYPE html><html><head><title>404</title></head></html>")));
});

describe("files that a fuzzer or a reader found", () => {
  const folder = join(ROOT, "test/fixtures/hostile");
  it.each(readdirSync(folder).filter((name) => name.endsWith(".safetensors")))("%s is refused", (name) => {
    failure(join(folder, name));
  });
});

describe("tensors over a file", () => {
  it.each([0, 1, 2, 3, 4, 7])("have the file's numbers, whatever the header's length (%i spaces)", async (pad) => {
    const values = Float32Array.from({ length: 12 }, (_, i) => i - 0.5);
    const text = `{"x":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}${" ".repeat(pad)}`;
    const file = openSafetensors(put(safetensorsBytes(text, new Uint8Array(values.buffer))));
    const device = loadAddon().openDevice({ kind: "cpu", threads: 1 });
    try {
      const tensor = device.fromFile(file, file.entries[0]!, "device");
      file.close(); // the tensor keeps the mapping
      const into = new Float32Array(12);
      await device.read(0, tensor, 0, into);
      expect(into).toEqual(values);
      expect(() => device.fromFile(file, file.entries[0]!, "device")).toThrow(expect.objectContaining({ code: "DISPOSED" }));
    } finally {
      await device.close();
    }
  });

  it("are refused where no operation takes their type", async () => {
    const file = openSafetensors(oneEntry('{"dtype":"F16","shape":[2],"data_offsets":[0,4]}'));
    const device = loadAddon().openDevice({ kind: "cpu", threads: 1 });
    expect(() => device.fromFile(file, file.entries[0]!, "device")).toThrow(
      expect.objectContaining({ code: "CHECKPOINT_UNSUPPORTED", message: expect.stringMatching(/"x" is F16/) }),
    );
    await device.close();
  });
});
