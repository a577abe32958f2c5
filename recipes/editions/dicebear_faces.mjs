// Draw faces of one DiceBear style that share few parts with each other.
//
//   node dicebear_faces.mjs NODE_MODULES STYLE COUNT
//
// Prints a JSON list of {seed, parts, svg}. Seeds are tried in a fixed order,
// and a face is taken only if no face taken before shares more of its parts
// than the cap allows; where too few pass, the cap is raised by one step.

import { pathToFileURL } from "node:url";

const CANDIDATES = 600;
const CAP_STEP = 0.05;
const NOT_PARTS = /ackground|^(base|body|head|shape)$/;
const FACE_IS_THE_GROUND = new Set(["fun-emoji"]);

const [modules, style, count] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${modules}/@dicebear/${name}/lib/index.js`).href);
const { createAvatar } = await load("core");
const collection = await load(style);

function face(seed) {
  const ground = FACE_IS_THE_GROUND.has(style) ? {} : { backgroundColor: ["transparent"] };
  const { svg, extra } = createAvatar(collection, { seed, ...ground }).toJson();
  return { seed, parts: extra, svg };
}

function partNames(parts) {
  return Object.keys(parts).filter((name) => FACE_IS_THE_GROUND.has(style) || !NOT_PARTS.test(name));
}

function sharedShare(one, other) {
  const names = partNames({ ...one.parts, ...other.parts }).filter((name) => varying.has(name));
  return names.filter((name) => one.parts[name] === other.parts[name]).length / names.length;
}

function taken(cap) {
  const faces = [];
  for (const candidate of candidates) {
    if (faces.length === Number(count)) break;
    if (faces.every((face) => sharedShare(face, candidate) <= cap)) faces.push(candidate);
  }
  return faces;
}

const candidates = Array.from({ length: CANDIDATES }, (_, index) => face(`${style}-${index}`));
const varying = new Set(
  partNames(Object.assign({}, ...candidates.map((candidate) => candidate.parts))).filter(
    (name) => new Set(candidates.map((candidate) => candidate.parts[name])).size > 2,
  ),
);
let cap = CAP_STEP;
while (taken(cap).length < Number(count)) cap += CAP_STEP;
process.stdout.write(JSON.stringify(taken(cap)));
