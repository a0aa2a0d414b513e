// Two copies of the package, whose folders are argv[2] and argv[3], in one process; prints their answers.
import { pathToFileURL } from "node:url";

const engines = [];
for (const folder of process.argv.slice(2)) {
  const { Engine } = await import(pathToFileURL(`${folder}/dist/index.js`).href);
  engines.push(await Engine.load(undefined, { device: "cpu", threads: 2 }));
}
const question = { messages: [{ role: "user", content: "Compute 56 + 80." }] };
const answers = await Promise.all(engines.map((engine) => engine.generate(question, { temperature: 0 })));
console.log(answers.map(({ text }) => text).join(" "), engines[0].constructor !== engines[1].constructor);
await engines[0].close();
console.log((await engines[1].generate(question, { temperature: 0 })).text);
