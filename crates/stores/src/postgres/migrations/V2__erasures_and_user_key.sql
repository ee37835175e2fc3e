-- Who was erased, by a salted hash: pairs of theirs that an instance received before that are never recorded.
create table erasures (
    at_us bigint not null,
    mark text collate "C" not null,
    primary key (at_us, mark)
);
comment on column erasures.at_us is 'unix time of the erasure in microseconds; rows older than the window are removed';

-- Noted by the first instance of this version that comes, or by setup.
alter table frame add column user_key text;
comment on column frame.user_key is 'digest of the user_key that the ids were hashed with, - for none; another one is refused';
