{{ config(group='scores') }}

-- Every cell of the paper's score tables that a row of the study fills: our number, the paper's, and what can be said of
-- the two. The tables are selections of these rows. A cell nobody has measured is there too, without a number.

with

cells as (
    select * from {{ study('cells') }} where kind in ('model', 'quoted')
),

models as (
    select * from {{ study('models') }}
),

quoted as (
    select * from {{ study('quoted') }}
),

backbones as (
    select * from {{ study('backbones') }}
),

adapters as (
    select * from {{ study('adapters') }}
),

training_sets as (
    select * from {{ study('training_sets') }}
),

benchmarks as (
    select * from {{ study('benchmarks') }}
),

judges as (
    select * from {{ study('judges') }}
),

lora_adapters as (
    select adapter, "rows" from {{ ref('lora_adapters') }}
),

benchmark_scores as (
    select * from {{ ref('benchmark_scores') }}
),

open_llm_leaderboard as (
    select * from {{ ref('open_llm_leaderboard') }}
),

---------- what was measured: benchmarks, and the tasks of the leaderboard by the standard error lm-eval gives

measured as (
    select
        model, benchmark, score, low, high, expected, missing, complete, note,
        against, difference as gain, difference_low as gain_low, difference_high as gain_high, p, p_corrected
    from benchmark_scores

    union all by name

    select
        model,
        task as benchmark,
        score,
        if(stderr is null, null, greatest(0, score - 1.96 * stderr)) as low,
        if(stderr is null, null, least(100, score + 1.96 * stderr)) as high,
        samples as expected,
        0 as missing,
        true as complete
    from open_llm_leaderboard
),

---------- what the paper measured with

paper_judges as (
    from (values ('mt_bench', 'gpt-4-0613'), ('arena_hard', 'gpt-4-1106-preview')) as judges (benchmark, model)
),

judged as (
    select
        benchmarks.name as benchmark,
        judges.model as judge,
        case when judges.model <> paper_judges.model
            then format('judged by {} in the place of {}', judges.name, paper_judges.model)
        end as substitution
    from benchmarks
    inner join judges on benchmarks.judge = judges.name
    left join paper_judges on benchmarks.name = paper_judges.benchmark
),

has_gsm8k as (
    select count(*) > 0 as is_so from cells where benchmark = 'gsm8k'
),

final as (
    select
        cells."table",
        cells.place,
        cells.kind,
        cells.name,
        quoted.title,
        models."row" as id,
        models.backbone,
        backbones.template,
        models.module,
        adapters.training_set,
        coalesce(training_sets.teacher, training_sets.reference) as teacher,
        coalesce(lora_adapters."rows", training_sets."rows") as pairs,
        cells.benchmark,
        measured.score,
        measured.low,
        measured.high,
        cells.paper,
        cells.quoted_from,
        measured.score - cells.paper as difference,
        cells.paper not between measured.low and measured.high as outside,
        measured.expected,
        measured.missing,
        measured.complete,
        measured.against,
        measured.gain,
        measured.gain_low,
        measured.gain_high,
        measured.p,
        measured.p_corrected,
        judged.judge,
        nullif(concat_ws(
            '; ',
            measured.note,
            judged.substitution,
            case when cells.benchmark = 'gsm8k'
                then 'not comparable with the paper: its harness ended an answer at a colon; compare changes only'
            end,
            case when cells.benchmark = 'open_llm_leaderboard' and has_gsm8k.is_so
                then 'holds GSM8K, which is not comparable with the paper'
            end
        ), '') as note
    from cells
    cross join has_gsm8k
    left join models on cells.kind = 'model' and cells.name = models.name
    left join quoted on cells.kind = 'quoted' and cells.name = quoted.name
    left join backbones on models.backbone = backbones.name
    left join adapters on models.adapter = adapters.name
    left join lora_adapters on models.adapter = lora_adapters.adapter
    left join training_sets on adapters.training_set = training_sets.name
    left join measured on cells.kind = 'model' and cells.name = measured.model and cells.benchmark = measured.benchmark
    left join judged on cells.benchmark = judged.benchmark
    order by cells."table", cells.place
)

select * from final
