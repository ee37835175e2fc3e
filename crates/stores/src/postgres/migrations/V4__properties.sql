-- Small documents that all instances share, such as the settings of a segment.
create table properties (
    name text collate "C" primary key,
    value text not null
);
