// Draw faces of one DiceBear style whose parts differ as much as can be.
//
//   node dicebear_faces.mjs NODE_MODULES STYLE COUNT
//
// Prints a JSON list of {seed, parts, svg}. Faces are drawn from fixed seeds;
// each next one is the candidate that shares the fewest parts with any face
// taken before, so that no two pictures of a style are near-duplicates.

import { pathToFileURL } from "node:url";

const CANDIDATES = 600;
const NOT_PARTS = /^(primaryBackgroundColor|secondaryBackgroundColor|backgroundType|backgroundRotation|base|body|head|shape)$/;

const [modules, style, count] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${modules}/@dicebear/${name}/lib/index.js`).href);
const { createAvatar } = await load("core");
const collection = await load(style);

function face(seed) {
  const { svg, extra } = createAvatar(collection, { seed }).toJson();
  return { seed, parts: extra, svg };
}

function sharedParts(one, other) {
  const names = Object.keys(one.parts).filter((name) => !NOT_PARTS.test(name));
  const shared = names.filter((name) => one.parts[name] === other.parts[name]);
  return shared.length / names.length;
}

function mostDifferent(candidates, wanted) {
  const taken = [candidates[0]];
  const closest = candidates.map((candidate) => [sharedParts(candidate, taken[0]), sharedParts(candidate, taken[0])]);
  while (taken.length < wanted) {
    let best = -1;
    candidates.forEach((candidate, index) => {
      if (taken.includes(candidate)) return;
      const [most, sum] = closest[index];
      if (best < 0 || most < closest[best][0] || (most === closest[best][0] && sum < closest[best][1])) best = index;
    });
    taken.push(candidates[best]);
    candidates.forEach((candidate, index) => {
      const shared = sharedParts(candidate, candidates[best]);
      closest[index] = [Math.max(closest[index][0], shared), closest[index][1] + shared];
    });
  }
  return taken;
}

const candidates = Array.from({ length: CANDIDATES }, (_, index) => face(`${style}-${index}`));
process.stdout.write(JSON.stringify(mostDifferent(candidates, Number(count))));
