{{ config(group='scores') }}

-- Table 8 of the paper, ours beside the paper's, in the order of the study's audits: how many documents of each source
-- the auditor takes for instruction data or finds a dialogue in, in percent of those it gave a verdict on.

with

audits as (
    select *, row_number() over () as place from {{ study('audits') }}
),

cells as (
    select * from {{ study('cells') }} where kind = 'audit' and "table" = 'table_8'
),

content_audit as (
    select * from {{ ref('content_audit') }}
),

---------- one row per source

shares as (
    select
        source,
        count(distinct document_id) as documents,
        {% for question in ('instruction', 'dialogue') %}
        100 * avg((verdict = 'yes')::int) filter (where question = '{{ question }}' and verdict <> 'invalid')
            as {{ question }},
        {% endfor %}
        count(*) filter (where verdict = 'invalid') as invalid,
        count(*) filter (where verdict = 'invalid') <= 0.02 * count(*) as complete
    from content_audit
    group by source
),

paper as (
    select
        name as source,
        max(paper) filter (where benchmark = 'instruction') as instruction,
        max(paper) filter (where benchmark = 'dialogue') as dialogue
    from cells
    group by name
),

---------- what an attack in the text changes: the same documents without it

attacked as (
    select
        planted.source,
        count(*) filter (where planted.verdict <> plain.verdict) as flips,
        {% for question in ('instruction', 'dialogue') %}
        100 * avg((plain.verdict = 'yes')::int)
            filter (where plain.question = '{{ question }}' and plain.verdict <> 'invalid') as {{ question }},
        {% endfor %}
    from content_audit as planted
    inner join audits on planted.source = audits.name and audits.kind = 'planted'
    inner join content_audit as plain
        on audits.of = plain.source and planted.document_id = plain.document_id and planted.question = plain.question
    group by planted.source
),

final as (
    select
        audits.name as source,
        audits.kind,
        audits.auditor,
        coalesce(shares.documents, 0) as documents,
        shares.instruction,
        paper.instruction as instruction_paper,
        shares.instruction - paper.instruction as instruction_difference,
        shares.dialogue,
        paper.dialogue as dialogue_paper,
        shares.dialogue - paper.dialogue as dialogue_difference,
        coalesce(shares.invalid, 0) as invalid,
        shares.complete,
        attacked.instruction as instruction_without_attack,
        attacked.dialogue as dialogue_without_attack,
        attacked.flips
    from audits
    left join shares on audits.name = shares.source
    left join paper on audits.name = paper.source
    left join attacked on audits.name = attacked.source
    order by audits.place
)

select * from final
