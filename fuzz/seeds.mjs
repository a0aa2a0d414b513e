// Writes the seed corpus of the safetensors fuzzer: headers of the small fixtures (few tensors of each, so that they stay short)
// and the hostile files that are kept as tests.   node fuzz/seeds.mjs FOLDER
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = process.argv[2];
mkdirSync(folder, { recursive: true });

/** A header in front of data of `bytes` bytes, as the fuzzer's second form reads it. */
function headerSeed(text, bytes) {
  return Buffer.concat([Buffer.from([1, bytes & 255, bytes >> 8]), Buffer.from(text)]);
}

for (const model of ["tiny-a", "tiny-lite-a"]) {
  const file = readFileSync(join(root, "test/fixtures", model, "model.safetensors"));
  const header = JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE(0))));
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  for (let i = 0; i < names.length; i += 20) {
    let offset = 0;
    const small = { __metadata__: header.__metadata__ };
    for (const name of names.slice(i, i + 3)) small[name] = { dtype: "F32", shape: [2, 3], data_offsets: [offset, (offset += 24)] };
    const text = JSON.stringify(small);
    writeFileSync(join(folder, `${model}-${i}`), headerSeed(text, offset));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
    writeFileSync(join(folder, `${model}-${i}-file`), Buffer.concat([Buffer.from([0]), prefix, Buffer.from(text), Buffer.alloc(offset)]));
  }
}
const types = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"];
for (const dtype of types) writeFileSync(join(folder, `dtype-${dtype}`), headerSeed(`{"\\u00e9\\ud83d\\ude00é":{"dtype":"${dtype}","shape":[0,7],"data_offsets":[0,0]}}`, 0));
const hostile = join(root, "test/fixtures/hostile");
for (const name of readdirSync(hostile)) writeFileSync(join(folder, `hostile-${name}`), Buffer.concat([Buffer.from([0]), readFileSync(join(hostile, name))]));
