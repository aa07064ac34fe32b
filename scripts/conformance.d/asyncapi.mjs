// Parses a document with the official AsyncAPI parser; warnings count as faults. Usage: asyncapi.mjs FILE
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const WARNING = 1;
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const faults = diagnostics.filter(({ severity }) => severity === ERROR || severity === WARNING);
for (const { code, path, message } of faults) console.error(`${code} at ${path.join("/")}: ${message}`);
if (!document || faults.length > 0) {
  console.error(`${faults.length} faults`);
  process.exit(1);
}
console.log(`AsyncAPI ${document.version()}, ${document.allChannels().length} channels, ${document.allMessages().length} messages`);
