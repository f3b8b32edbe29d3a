{{ config(group='scores', plot='cost_against_score') }}

-- What the pairs of each trained model cost at the teacher's list price, beside what the model scores. A smaller set is
-- the beginning of a larger one, so a pair costs what the teacher's completions cost on average.

with

models as (
    select *, row_number() over () as place from {{ study('models') }}
),

adapters as (
    select * from {{ study('adapters') }}
),

training_sets as (
    select * from {{ study('training_sets') }}
),

prices as (
    select * from {{ study('prices') }}
),

completions as (
    select
        teacher,
        count(*) as documents,
        coalesce(sum(input_tokens), 0) / count(*) as input_tokens,
        coalesce(sum(output_tokens), 0) / count(*) as output_tokens
    from {{ ref('completions') }}
    group by teacher
),

lora_adapters as (
    select adapter, "rows", tokens from {{ ref('lora_adapters') }}
),

benchmark_scores as (
    select * from {{ ref('benchmark_scores') }}
),

final as (
    select
        models.name as model,
        adapters.training_set,
        training_sets.teacher,
        lora_adapters."rows" as pairs,
        round(lora_adapters."rows" * (completions.input_tokens + completions.output_tokens))::bigint as teacher_tokens,
        round(
            lora_adapters."rows"
            * (completions.input_tokens * prices.input + completions.output_tokens * prices.output) / 1e6,
            6
        ) as usd,
        lora_adapters.tokens as training_tokens,
        {% for benchmark in ('mt_bench', 'arena_hard') %}
        {{ benchmark }}.score as {{ benchmark }},
        {{ benchmark }}.low as {{ benchmark }}_low,
        {{ benchmark }}.high as {{ benchmark }}_high,
        {% endfor %}
    from models
    inner join adapters on models.adapter = adapters.name
    inner join training_sets on adapters.training_set = training_sets.name
    left join lora_adapters on models.adapter = lora_adapters.adapter
    left join completions on training_sets.teacher = completions.teacher
    left join prices on training_sets.teacher = prices.teacher
    {% for benchmark in ('mt_bench', 'arena_hard') %}
    left join benchmark_scores as {{ benchmark }}
        on models.name = {{ benchmark }}.model and {{ benchmark }}.benchmark = '{{ benchmark }}'
    {% endfor %}
    order by models.place
)

select * from final
