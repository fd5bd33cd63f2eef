// Drives @neondatabase/serverless and drizzle-orm/neon-http, both unmodified, against a gateway, as
// two tenants at once. Arguments: the gateway's URL.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { neon, neonConfig, NeonDbError } from '@neondatabase/serverless';
import { drizzle } from 'drizzle-orm/neon-http';
import { migrate } from 'drizzle-orm/neon-http/migrator';
import { count, eq, sql as fragment } from 'drizzle-orm';
import { pgTable, serial, text, numeric, bigint, jsonb, timestamp } from 'drizzle-orm/pg-core';

const gateway = process.argv[2];
neonConfig.fetchEndpoint = () => `${gateway}/sql`;

const tenants = ['acme', 'globex'];
const connect = (tenant, options) => neon(`postgres://${tenant}:unused@db.invalid/main`, options);

const notes = pgTable('notes', {
  id: serial('id').primaryKey(),
  tenant: text('tenant'),
  note: text('note').unique(),
  price: numeric('price'),
  large: bigint('large', { mode: 'bigint' }),
  doc: jsonb('doc'),
  due: timestamp('due', { withTimezone: true }),
});

async function driver(tenant) {
  const sql = connect(tenant);
  const own = await sql`select distinct tenant from notes`;
  assert.deepEqual(own, [{ tenant }]);
  const [added] = await sql`insert into notes (note, price) values (${`${tenant} driver`}, ${'1.10'}) returning *`;
  assert.equal(added.tenant, tenant);
  assert.equal(added.price, '1.10');
  const [changed] = await sql`update notes set note = ${'changed'} where id = ${added.id} returning note`;
  assert.equal(changed.note, 'changed');
  const removed = await sql.query('delete from notes where id = $1', [added.id], { fullResults: true });
  assert.equal(removed.command, 'DELETE');
  assert.equal(removed.rowCount, 1);

  const full = await connect(tenant, { fullResults: true, arrayMode: true })`select 1 as a, 'x' as b`;
  assert.deepEqual(full.rows, [[1, 'x']]);
  assert.deepEqual(full.fields.map((field) => [field.name, field.dataTypeID]), [['a', 23], ['b', 25]]);
  assert.deepEqual(await sql`select note from notes where false`, []);
}

async function types(tenant) {
  const sql = connect(tenant);
  const [row] = await sql`select
    9007199254740993::int8 as large, 12345678901234567890.10::numeric as exact, 0.1::float8 as tenth,
    'NaN'::float8 as nan, '-Infinity'::float8 as low, 'NaN'::numeric as no_number, true as yes,
    '2024-01-31 12:00:00.123456+02'::timestamptz as moment, 'infinity'::timestamptz as never, '2024-02-29'::date as leap,
    '123e4567-e89b-12d3-a456-426614174000'::uuid as id, '\\xdeadbeef'::bytea as bytes,
    array[1, null, 3] as numbers, array['a b', 'c"d', null] as words, '{"a": [1, {"b": null}]}'::jsonb as doc,
    'happy'::mood as mood, '[1,3)'::int4range as range, null as nothing, 'ä€😀' as letters`;
  assert.equal(row.large, '9007199254740993');
  assert.equal(row.exact, '12345678901234567890.10');
  assert.equal(row.tenth, 0.1);
  assert.ok(Number.isNaN(row.nan));
  assert.equal(row.low, -Infinity);
  assert.equal(row.no_number, 'NaN');
  assert.equal(row.yes, true);
  assert.equal(row.moment.toISOString(), '2024-01-31T10:00:00.123Z');
  assert.equal(row.never, Infinity);
  assert.equal(row.leap.getMonth(), 1);
  assert.equal(row.id, '123e4567-e89b-12d3-a456-426614174000');
  assert.equal(Buffer.from(row.bytes).toString('hex'), 'deadbeef');
  assert.deepEqual(row.numbers, [1, null, 3]);
  assert.deepEqual(row.words, ['a b', 'c"d', null]);
  assert.deepEqual(row.doc, { a: [1, { b: null }] });
  assert.equal(row.mood, 'happy');
  assert.equal(row.range, '[1,3)');
  assert.equal(row.nothing, null);
  assert.equal(row.letters, 'ä€😀');

  const [back] = await sql`select ${[1, 2]}::int[] as list, ${{ a: 1 }}::jsonb as doc, ${Buffer.from('hi')}::bytea as bytes,
    ${new Date(0)}::timestamptz as moment, ${null}::text as nothing, ${true}::bool as yes, ${12n}::int8 as large`;
  assert.deepEqual(back.list, [1, 2]);
  assert.deepEqual(back.doc, { a: 1 });
  assert.equal(Buffer.from(back.bytes).toString(), 'hi');
  assert.equal(back.moment.getTime(), 0);
  assert.equal(back.nothing, null);
  assert.equal(back.yes, true);
  assert.equal(back.large, '12');
}

async function transactions(tenant) {
  const sql = connect(tenant);
  const note = `${tenant} in a transaction`;
  const [inserted, counted] = await sql.transaction([
    sql`insert into notes (note) values (${note}) returning tenant`,
    sql`select count(*)::int as n from notes`,
  ]);
  assert.equal(inserted[0].tenant, tenant);
  await assert.rejects(
    sql.transaction([sql`delete from notes where note = ${note}`, sql`insert into notes (id) values (${'none'})`]),
    (error) => error instanceof NeonDbError && error.code === '22P02',
  );
  const [{ n }] = await sql`select count(*)::int as n from notes`;
  assert.equal(n, counted[0].n);
  const serializable = { isolationLevel: 'Serializable', readOnly: true, deferrable: true };
  const [[{ shown }]] = await sql.transaction([sql`select show('transaction_isolation') as shown`], serializable);
  assert.equal(shown, 'serializable');
  await assert.rejects(
    sql.transaction([sql`delete from notes`], { readOnly: true }),
    (error) => error.code === '25006',
  );
  await sql`delete from notes where note = ${note}`;
}

async function errors(tenant) {
  const sql = connect(tenant);
  await assert.rejects(sql`insert into notes (note) values (${`${tenant} 1`})`, (error) => {
    assert.ok(error instanceof NeonDbError);
    assert.equal(error.code, '23505');
    assert.equal(error.constraint, 'notes_note_key');
    assert.equal(error.table, 'notes');
    assert.equal(error.schema, tenant);
    assert.equal(error.severity, 'ERROR');
    assert.match(error.detail, /already exists/);
    return true;
  });
  await assert.rejects(sql`select nothing from notes`, (error) => error.code === '42703' && error.position === '8');
  // Refusals of the gateway's are errors of the same kind.
  const other = tenants.find((name) => name !== tenant);
  await assert.rejects(sql.query(`select * from ${other}.notes`), (error) => {
    assert.ok(error instanceof NeonDbError);
    assert.equal(error.code, 'query-refused');
    assert.ok(!/HTTP status/.test(error.message), error.message);
    return true;
  });
  await assert.rejects(sql.query('set role postgres'), (error) => error.code === 'query-refused');
  await assert.rejects(connect('nobody')`select 1`, (error) => error.code === 'tenant-unknown');
}

async function orm(tenant) {
  const db = drizzle(connect(tenant));
  const [added] = await db
    .insert(notes)
    .values({ note: `${tenant} drizzle`, price: '2.50', large: 9007199254740993n, doc: { a: [1] }, due: new Date(0) })
    .returning();
  assert.equal(added.tenant, tenant);
  assert.equal(added.price, '2.50');
  assert.equal(added.large, 9007199254740993n);
  assert.deepEqual(added.doc, { a: [1] });
  assert.equal(added.due.getTime(), 0);
  const found = await db.select().from(notes).where(eq(notes.note, `${tenant} drizzle`));
  assert.deepEqual(found, [added]);
  await db.update(notes).set({ price: '3.00' }).where(eq(notes.id, added.id));
  const [[changed], [{ n }]] = await db.batch([
    db.select({ price: notes.price }).from(notes).where(eq(notes.id, added.id)),
    db.select({ n: count() }).from(notes),
  ]);
  assert.equal(changed.price, '3.00');
  assert.equal(await db.$count(notes), n);
  const executed = await db.execute(fragment`select tenant from notes group by tenant`);
  assert.deepEqual(executed.rows, [{ tenant }]);
  await db.delete(notes).where(eq(notes.id, added.id));
  await assert.rejects(db.insert(notes).values({ note: `${tenant} 1` }), (error) => error.cause?.code === '23505');
}

// What `drizzle-kit generate` writes.
const migrationsFolder = './migrations';
mkdirSync(`${migrationsFolder}/meta`, { recursive: true });
writeFileSync(
  `${migrationsFolder}/meta/_journal.json`,
  JSON.stringify({
    version: '7',
    dialect: 'postgresql',
    entries: [{ idx: 0, version: '7', when: 1700000000000, tag: '0000_first', breakpoints: true }],
  }),
);
writeFileSync(
  `${migrationsFolder}/0000_first.sql`,
  `CREATE TABLE "authors" ("id" serial PRIMARY KEY NOT NULL, "name" text NOT NULL);
--> statement-breakpoint
CREATE TABLE "books" ("id" serial PRIMARY KEY NOT NULL, "author_id" integer);
--> statement-breakpoint
ALTER TABLE "books" ADD CONSTRAINT "books_author_id_fk" FOREIGN KEY ("author_id") REFERENCES "authors"("id") ON DELETE no action ON UPDATE no action;`,
);

async function migrations(tenant) {
  const sql = connect(tenant);
  const db = drizzle(sql);
  // The second time, as at the next start of the application, there is nothing to do.
  for (let start = 0; start < 2; start += 1) {
    await migrate(db, { migrationsFolder, migrationsSchema: tenant });
  }
  assert.equal((await sql`select hash from __drizzle_migrations`).length, 1);
  await assert.rejects(sql`insert into books (author_id) values (1)`, (error) => error.code === '23503');
  await sql`insert into authors (name) values (${tenant})`;
  assert.deepEqual(await sql`select name from authors`, [{ name: tenant }]);
  // Its own schema, drizzle's default, is no tenant's: the refusal names the setting.
  const refused = (error) => /migrationsSchema/.test(`${error.message} ${error.cause?.message}`);
  await assert.rejects(migrate(db, { migrationsFolder }), refused);
}

// Everything at once, for both tenants: each must see its own rows alone. Within a tenant one after
// the other, because some count what is there. drizzle replaces the driver's type parsers for the
// whole process, and so comes last.
for (const parts of [[driver, types, transactions, errors], [orm]]) {
  await Promise.all(
    tenants.map(async (tenant) => {
      for (let round = 0; round < 3; round += 1) {
        for (const part of parts) {
          await part(tenant);
        }
      }
    }),
  );
}
await Promise.all(tenants.map(migrations));
console.log('clients: passed');
