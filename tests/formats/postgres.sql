CREATE SCHEMA headcount;
CREATE TABLE headcount.erasures (
    at_us bigint NOT NULL,
    mark text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON COLUMN headcount.erasures.at_us IS 'unix time of the erasure in microseconds; rows older than the window are removed';
CREATE TABLE headcount.frame (
    id smallint DEFAULT 1 NOT NULL,
    resolution_seconds integer NOT NULL,
    trend_thinned_until bigint DEFAULT (((EXTRACT(epoch FROM now()))::bigint / 3600) * 3600) NOT NULL,
    user_key text,
    CONSTRAINT frame_id_check CHECK ((id = 1)),
    CONSTRAINT frame_resolution_seconds_check CHECK ((resolution_seconds > 0))
);
COMMENT ON COLUMN headcount.frame.resolution_seconds IS 'length of a slot; seen_slot * this is unix time';
COMMENT ON COLUMN headcount.frame.trend_thinned_until IS 'unix time before which the trend has one point an hour';
COMMENT ON COLUMN headcount.frame.user_key IS 'digest of the user_key that the ids were hashed with, - for none; another one is refused';
CREATE TABLE headcount.pairs (
    seen_slot bigint NOT NULL,
    segment_id integer NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C"
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
COMMENT ON COLUMN headcount.pairs.seen_slot IS 'the latest slot in which the user was seen in the segment';
CREATE TABLE headcount.schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
CREATE TABLE headcount.segments (
    id integer NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C"
);
ALTER TABLE headcount.segments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME headcount.segments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE headcount.trend (
    at timestamp with time zone NOT NULL,
    users bigint NOT NULL,
    segment_id integer NOT NULL,
    window_seconds integer NOT NULL
);
COPY headcount.erasures (at_us, mark) FROM stdin;
1795953630000000	c612015cb5ee2c116a9da5e2704e049e45792468189a71b1e06c2f83d74ce06e
\.
COPY headcount.frame (id, resolution_seconds, trend_thinned_until, user_key) FROM stdin;
1	60	1795989600	a digest
\.
COPY headcount.pairs (seen_slot, segment_id, user_id) FROM stdin;
29932440	1	a,b=c d
29932560	1	in  ner
29913840	1	qu"o\\te
29931180	1	{tag}:*?
29930760	1	Юля🙂
29932440	2	a,b=c d
29930760	2	Юля🙂
\.
COPY headcount.schema_history (version, name, applied_on, checksum) FROM stdin;
1	pairs	2026-11-29T22:04:52.231397502Z	9625426566569132903
2	erasures_and_user_key	2026-11-29T22:04:52.231407102Z	3079674913560150529
\.
COPY headcount.segments (id, name) FROM stdin;
1	sports
2	a b,c=d"e\\f{🏀}%7B*
\.
COPY headcount.trend (at, users, segment_id, window_seconds) FROM stdin;
2026-11-29 11:50:30+00	7	2	86400
2026-11-29 11:55:30+00	9	2	86400
\.
SELECT pg_catalog.setval('headcount.segments_id_seq', 2, true);
ALTER TABLE ONLY headcount.erasures
    ADD CONSTRAINT erasures_pkey PRIMARY KEY (at_us, mark);
ALTER TABLE ONLY headcount.frame
    ADD CONSTRAINT frame_pkey PRIMARY KEY (id);
ALTER TABLE ONLY headcount.pairs
    ADD CONSTRAINT pairs_pkey PRIMARY KEY (segment_id, user_id);
ALTER TABLE ONLY headcount.schema_history
    ADD CONSTRAINT schema_history_pkey PRIMARY KEY (version);
ALTER TABLE ONLY headcount.segments
    ADD CONSTRAINT segments_name_key UNIQUE (name);
ALTER TABLE ONLY headcount.segments
    ADD CONSTRAINT segments_pkey PRIMARY KEY (id);
ALTER TABLE ONLY headcount.trend
    ADD CONSTRAINT trend_pkey PRIMARY KEY (segment_id, window_seconds, at);
CREATE INDEX pairs_by_slot ON headcount.pairs USING btree (segment_id, seen_slot);
CREATE INDEX trend_by_time ON headcount.trend USING brin (at) WITH (pages_per_range='16', autosummarize='on');
