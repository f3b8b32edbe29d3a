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
    select * from {{ study('cells') }} where kind = 'model' and "table" = 'table_9' and benchmark = 'mt_bench'
),

models as (
    select * from {{ study('models') }} where module = 'lora'
),

adapters as (
    select * from {{ study('adapters') }}
),

mt_bench as (
    select * from {{ ref('benchmark_scores') }} where benchmark = 'mt_bench'
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

---------- what was trained on them

trained as (
    select models.backbone, adapters.training_set, mt_bench.score, mt_bench.complete, cells.paper
    from models
    inner join adapters on models.adapter = adapters.name
    left join mt_bench on models.name = mt_bench.model
    left join cells on models.name = cells.name
),

final as (
    select
        pairs.teacher,
        pairs.documents,
        pairs.before_set,
        pairs.after_set,
        before.backbone,
        before.score as before,
        before.paper as before_paper,
        after.score as after,
        after.paper as after_paper,
        after.score - before.score as change,
        after.paper - before.paper as change_paper,
        before.complete and after.complete as complete
    from pairs
    left join trained as before on pairs.before_set = before.training_set
    left join trained as after on pairs.after_set = after.training_set and before.backbone = after.backbone
    order by pairs.place, before.backbone
)

select * from final
