{{ config(group='scores') }}

-- Table 9 of the paper, ours beside the paper's: MT-Bench of what is trained on a set as it is, and on the same set
-- without what the auditor flagged. Two sets of one teacher are before and after if they differ in the filter `audited`
-- alone.

with

training_sets as (
    select *, row_number() over () as place from {{ study('training_sets') }}
),

training_set_filters as (
    select * from {{ study('training_set_filters') }}
),

cells as (
    select * from {{ ref('score_cells') }} where "table" = 'table_9' and benchmark = 'mt_bench'
),

---------- pairs of sets that differ in `audited` alone

filtered as (
    select
        training_sets.*,
        coalesce(list(filter order by filter) filter (where filter <> 'audited'), []) as other_filters,
        coalesce(bool_or(filter = 'audited'), false) as is_audited
    from training_sets
    left join training_set_filters on training_sets.name = training_set_filters.training_set
    group by all
),

pairs as (
    select
        before.teacher,
        before.rows as documents,
        before.name as before_set,
        after.name as after_set,
        before.place
    from filtered as before
    inner join filtered as after
        on before.teacher = after.teacher
        and before.rows = after.rows
        and before.keep_truncated = after.keep_truncated
        and before.other_filters = after.other_filters
        and after.is_audited
        and not after.refill
    where not before.is_audited
),

final as (
    select
        pairs.teacher,
        pairs.documents,
        pairs.before_set,
        pairs.after_set,
        before.backbone,
        {% for side in ('before', 'after') %}
        {{ side }}.score as {{ side }},
        {{ side }}.low as {{ side }}_low,
        {{ side }}.high as {{ side }}_high,
        {{ side }}.paper as {{ side }}_paper,
        {{ side }}.difference as {{ side }}_difference,
        {{ side }}.outside as {{ side }}_outside,
        {{ side }}.complete as {{ side }}_complete,
        {% endfor %}
        after.score - before.score as change,
        after.paper - before.paper as change_paper,
        before.note
    from pairs
    left join cells as before on pairs.before_set = before.training_set
    left join cells as after on pairs.after_set = after.training_set and before.backbone = after.backbone
    order by pairs.place, before.backbone
)

select * from final
