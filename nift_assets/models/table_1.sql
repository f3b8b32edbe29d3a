{{ config(group='scores') }}

-- Table 1 of the paper, ours beside the paper's, in the order of the study's rows. A cell nobody has measured is null.

with

models as (
    select *, row_number() over () as place from {{ study('models') }}
),

backbones as (
    select * from {{ study('backbones') }}
),

adapters as (
    select * from {{ study('adapters') }}
),

cells as (
    select * from {{ study('cells') }} where kind = 'model' and "table" = 'table_1'
),

benchmark_scores as (
    select * from {{ ref('benchmark_scores') }}
),

---------- one benchmark each

mt_bench as (
    select * from benchmark_scores where benchmark = 'mt_bench'
),

open_llm_leaderboard as (
    select * from benchmark_scores where benchmark = 'open_llm_leaderboard'
),

paper_mt_bench as (
    select name, paper from cells where benchmark = 'mt_bench'
),

paper_open_llm_leaderboard as (
    select name, paper from cells where benchmark = 'open_llm_leaderboard'
),

final as (
    select
        models.name as model,
        models."row" as id,
        models.backbone,
        backbones.template,
        models.module,
        adapters.training_set,
        mt_bench.score as mt_bench,
        mt_bench.low as mt_bench_low,
        mt_bench.high as mt_bench_high,
        mt_bench.complete as mt_bench_complete,
        paper_mt_bench.paper as mt_bench_paper,
        mt_bench.score - paper_mt_bench.paper as mt_bench_difference,
        open_llm_leaderboard.score as oll,
        open_llm_leaderboard.low as oll_low,
        open_llm_leaderboard.high as oll_high,
        paper_open_llm_leaderboard.paper as oll_paper,
        open_llm_leaderboard.score - paper_open_llm_leaderboard.paper as oll_difference
    from models
    inner join backbones on models.backbone = backbones.name
    left join adapters on models.adapter = adapters.name
    left join mt_bench on models.name = mt_bench.model
    left join open_llm_leaderboard on models.name = open_llm_leaderboard.model
    left join paper_mt_bench on models.name = paper_mt_bench.name
    left join paper_open_llm_leaderboard on models.name = paper_open_llm_leaderboard.name
    order by models.place
)

select * from final
