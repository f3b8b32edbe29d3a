{{ config(group='scores', plot='mt_bench_categories') }}

-- MT-Bench by category, the order of the questions being that of the categories: where a model gains and where it loses.

with

models as (
    select name as model, row_number() over () as place from {{ study('models') }}
),

mt_bench_judgments as (
    select * from {{ ref('mt_bench_judgments') }}
),

final as (
    select
        judgments.model,
        judgments.category,
        avg(judgments.rating) as rating,
        count(*) as verdicts,
        count(*) - count(judgments.rating) as missing
    from mt_bench_judgments as judgments
    inner join models on judgments.model = models.model
    group by judgments.model, judgments.category, models.place
    order by models.place, min(judgments.question_id), judgments.category
)

select * from final
