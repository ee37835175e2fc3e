-- Made by setup, or by the first instance that needs it. It stays null until then.
alter table frame add column fingerprint_key bytea check (octet_length(fingerprint_key) = 16);
comment on column frame.fingerprint_key is 'random key under which user ids become fingerprints, one for all instances; never change it';
