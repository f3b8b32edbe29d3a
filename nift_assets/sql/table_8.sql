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

---------- one row per source and question, with Wilson's 95 % interval

answered as (
    select
        source,
        question,
        count(*) filter (where verdict <> 'invalid') as n,
        avg((verdict = 'yes')::int) filter (where verdict <> 'invalid') as share
    from content_audit
    group by source, question
),

intervals as (
    select
        *,
        (share + 1.96 ** 2 / (2 * n)) / (1 + 1.96 ** 2 / n) as middle,
        1.96 * sqrt(share * (1 - share) / n + 1.96 ** 2 / (4 * n ** 2)) / (1 + 1.96 ** 2 / n) as half
    from answered
    where n > 0
),

shares as (
    select
        intervals.source,
        {% for question in ('instruction', 'dialogue') %}
        {% set of_it = "filter (where intervals.question = '" ~ question ~ "')" %}
        max(100 * share) {{ of_it }} as {{ question }},
        max(round(100 * greatest(middle - half, 0), 2)) {{ of_it }} as {{ question }}_low,
        max(round(100 * least(middle + half, 1), 2)) {{ of_it }} as {{ question }}_high,
        {% endfor %}
    from intervals
    group by intervals.source
),

asked as (
    select
        source,
        count(distinct document_id) as documents,
        count(*) filter (where verdict = 'invalid') as invalid
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
        coalesce(asked.documents, 0) as documents,
        {% for question in ('instruction', 'dialogue') %}
        shares.{{ question }},
        shares.{{ question }}_low,
        shares.{{ question }}_high,
        paper.{{ question }} as {{ question }}_paper,
        shares.{{ question }} - paper.{{ question }} as {{ question }}_difference,
        paper.{{ question }} not between shares.{{ question }}_low and shares.{{ question }}_high
            as {{ question }}_outside,
        {% endfor %}
        coalesce(asked.invalid, 0) as invalid,
        asked.invalid <= 0.02 * 2 * asked.documents as complete,
        attacked.instruction as instruction_without_attack,
        attacked.dialogue as dialogue_without_attack,
        attacked.flips
    from audits
    left join asked on audits.name = asked.source
    left join shares on audits.name = shares.source
    left join paper on audits.name = paper.source
    left join attacked on audits.name = attacked.source
    order by audits.place
)

select * from final
