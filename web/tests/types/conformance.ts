// The declarations and the source beside them say the same. `source.js` is a copy of the source, under a name that has no declarations.
import * as made from './source.js';
import * as written from './resilient-sse.js';

/** What is declared is there, with these types. */
export const kept: typeof written = made;

/** What is there is declared: exports, and the members of their instances. */
type Undeclared<Made, Written> = Exclude<keyof Made, keyof Written>;
type None<T> = [T] extends [never] ? true : { undeclared: T };
type Instances<M extends Record<keyof M, abstract new (...args: any) => any>> = { [Name in keyof M]: InstanceType<M[Name]> };
type MembersOf<M extends Record<keyof M, abstract new (...args: any) => any>> = { [Name in keyof M]: keyof Instances<M>[Name] };

export const exported: None<Undeclared<typeof made, typeof written>> = true;
type Made = MembersOf<typeof made>;
type Written = MembersOf<typeof written>;
export const source: None<Exclude<Made['ResilientEventSource'], Written['ResilientEventSource']>> = true;
export const parser: None<Exclude<Made['EventStreamParser'], Written['EventStreamParser']>> = true;
export const error: None<Exclude<Made['ResilientEventSourceError'], Written['ResilientEventSourceError']>> = true;
