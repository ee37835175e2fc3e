-- Who was erased, by a salted hash: pairs of theirs that an instance received before that are never recorded.
create table erasures (
    at_us bigint not null,
    mark text collate "C" not null,
    primary key (at_us, mark)
);
comment on column erasures.at_us is 'unix time of the erasure in microseconds; rows older than the window are removed';
